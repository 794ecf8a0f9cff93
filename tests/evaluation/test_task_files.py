import json

import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation.prompting import Prompts
from glm_jax.evaluation.task_files import read_tasks
from tests.evaluation.models import BLANKS, CAUSAL, TOKENIZER

CHOICE = """
kind = "choice"
data = "{data}"
prompt = "{{text}} [MASK]"
choices = ["made", "said"]
"""
LINES = [{"text": "God", "answer": "made"}, {"text": "He", "answer": "said"}]


def write(folder, name, spec, lines=LINES):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.toml").write_text(spec)
    (folder / "d.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_directory_is_its_files_and_folders(tmp_path):
    write(tmp_path, "zeal", CHOICE.format(data="d.jsonl"))
    write(tmp_path / "wiki", "task", 'kind = "perplexity"\ndata = "t.txt"')
    (tmp_path / "wiki" / "t.txt").write_text("In the beginning.\n\nGod said.\n")
    (tmp_path / "wiki" / "other.toml").write_text("not a task")
    (tmp_path / "README.md").write_text("about")
    wiki, zeal = read_tasks(tmp_path)
    assert (wiki.name, zeal.name) == ("wiki", "zeal")
    # A .txt is one text, to its last character.
    assert [one.prompt for one in wiki.examples] == ["In the beginning.\n\nGod said.\n"]
    assert [one.right for one in zeal.examples] == [0, 1]
    (alone,) = read_tasks(tmp_path / "zeal.toml", 1)
    assert len(alone.examples) == 1


def test_a_fingerprint_is_of_what_is_asked(tmp_path):
    write(tmp_path / "a", "t", CHOICE.format(data="d.jsonl"))
    write(tmp_path / "b", "t", CHOICE.format(data="d.jsonl") + 'metrics = ["accuracy"]')
    write(tmp_path / "c", "t", CHOICE.format(data="d.jsonl").replace("[MASK]", "[gMASK]"))
    write(tmp_path / "d", "t", CHOICE.format(data="d.jsonl"), LINES[::-1])
    a, b, c, d = (read_tasks(tmp_path / name)[0].fingerprint for name in "abcd")
    # Where it stands and what is made of it is another matter.
    assert a == b
    assert len({a, c, d}) == 3
    assert read_tasks(tmp_path / "a", 1)[0].fingerprint != a


def test_all_examples_are_prepared_or_the_task_is_named(tmp_path):
    write(tmp_path, "t", CHOICE.format(data="d.jsonl"), [*LINES, {"text": "[CLS]", "answer": 0}])
    (task,) = read_tasks(tmp_path)
    with pytest.raises(UserError, match=r"the task 't': .*line 3: '\[CLS\]' spells a special"):
        task.prepared(Prompts(TOKENIZER, BLANKS))
    # Of a causal model a prompt has no special tokens.
    assert len(task.prepared(Prompts(TOKENIZER, CAUSAL))) == 3


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("kind = ", r"cannot read .*t\.toml: it is not TOML: "),
        ('kind = "choice"', r"t\.toml: a task needs kind = \.\. and data = \.\."),
        ('kind = "choise"\ndata = "x"', "unknown kind 'choise'"),
        (CHOICE.format(data="none.jsonl"), r"cannot read .*none\.jsonl: No such file"),
        (CHOICE.format(data="d.jsonl").replace("{text}", "{txt}"), "line 1: no column 'txt'"),
        (CHOICE.format(data="d.jsonl").replace("{text}", "{0.a}"), "no column '0.a'"),
        (CHOICE.format(data="d.jsonl").replace("{text}", "{"), "has braces that hold no column"),
        (CHOICE.format(data="d.jsonl") + 'metrics = ["rouge1"]', "'rouge1' is not for the kind"),
        (CHOICE.format(data="d.jsonl") + 'labels = ["x", "y"]', "not among the labels: 'x', 'y'"),
    ],
)
def test_mistakes(tmp_path, spec, message):
    write(tmp_path, "t", spec)
    with pytest.raises(UserError, match=message):
        read_tasks(tmp_path)


@pytest.mark.parametrize("key", ['text = "x"', "num_examples = 3"])
def test_a_text_has_no_columns_and_no_examples(tmp_path, key):
    write(tmp_path, "t", f'kind = "perplexity"\ndata = "t.txt"\n{key}')
    (tmp_path / "t.txt").write_text("In the beginning.")
    with pytest.raises(UserError, match=r"is for lines of JSON; t\.txt is one text"):
        read_tasks(tmp_path)


def test_directories_without_tasks(tmp_path):
    with pytest.raises(UserError, match=r"holds no task: NAME\.toml, or NAME/task\.toml"):
        read_tasks(tmp_path)
    write(tmp_path, "unigram_loss", CHOICE.format(data="d.jsonl"))
    with pytest.raises(UserError, match=r"a task's name has letters.* got 'unigram_loss'"):
        read_tasks(tmp_path)
    (tmp_path / "unigram_loss.toml").unlink()
    write(tmp_path, "a", CHOICE.format(data="d.jsonl"))
    write(tmp_path / "a", "task", CHOICE.format(data="d.jsonl"))
    with pytest.raises(UserError, match="has two tasks of the name 'a'"):
        read_tasks(tmp_path)
