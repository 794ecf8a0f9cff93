"""Sources and targets: their form for each kind of model, and the files that hold them."""

import pytest

import glm_jax
from glm_jax.config import Config, DataConfig
from glm_jax.config.examples import ExamplesConfig
from glm_jax.data.documents import Skipped
from glm_jax.data.examples.building import described_files, store_key
from glm_jax.data.examples.example import example_of
from glm_jax.data.examples.files import example_files, records, with_targets
from glm_jax.data.examples.seq2seq import Seq2SeqMaker
from glm_jax.errors import UserError
from tests.tokenizers.golden_chat import ICE_TEXT, PIECES

TOKENIZER = glm_jax.load_tokenizer("bundled")
RECORD = {"source": " In the beginning God made heaven ", "target": "God made it"}


def maker(tokenizer=TOKENIZER, fills_blanks=True, **options):
    return Seq2SeqMaker(ExamplesConfig(format="seq2seq", **options), tokenizer, fills_blanks)


def test_the_form_of_glm():
    (made,) = maker().examples(RECORD)
    special = TOKENIZER.special
    whole = TOKENIZER.encode("it: Content: In the beginning God made heaven")
    text = whole[len(TOKENIZER.encode("it:")) :]
    answer = TOKENIZER.encode("God made it")
    part_a = [special.cls, special.smask, *text]
    assert made.tokens.tolist() == [*part_a, special.start, *answer]
    assert made.targets[made.learnt].tolist() == [*answer, special.end]
    assert made.prefix == len(part_a)
    # The blank stands first behind [CLS].
    assert set(made.positions[made.prefix :].tolist()) == {1}
    assert made.block_positions[made.prefix :].tolist() == list(range(1, len(answer) + 2))


def test_lengths_are_those_of_part_a_and_of_the_answer_with_its_end():
    whole = maker().examples(RECORD)[0]
    (made,) = maker(max_source_length=6, max_target_length=3).examples(RECORD)
    assert made.prefix == 6
    assert made.tokens[:6].tolist() == whole.tokens[:6].tolist()
    assert made.targets[made.learnt].tolist() == whole.targets[whole.learnt][:3].tolist()


@pytest.mark.parametrize("kind", ["glm", "chatglm", "chatglm2", "chatglm3"])
def test_no_example_has_more_slots_than_the_config_says(kind):
    """`ExamplesConfig.longest`, by which positions are checked before any row is made."""
    fills = kind in ("glm", "chatglm")
    tokenizer = TOKENIZER
    if kind != "glm":
        tokenizer = glm_jax.load_tokenizer(ICE_TEXT if fills else PIECES, kind=kind)
    cut = maker(tokenizer, fills, max_source_length=6, max_target_length=5)
    long = {"source": "a light of the world " * 9, "target": "God made it " * 9}
    (made,) = cut.examples(long)
    config = ExamplesConfig(format="seq2seq", max_source_length=6, max_target_length=5)
    assert config.longest(fills) == 11
    # ChatGLM-6B's rule leaves one of them empty.
    assert len(made) == 11 - (kind == "chatglm")
    assert made.positions.max() < 11
    assert made.block_positions.max() < 11


@pytest.mark.parametrize(("kind", "fills_blanks"), [("chatglm", True), ("chatglm3", False)])
def test_a_chat_model_has_its_own_rule(kind, fills_blanks):
    """As a message and its answer by the rule of the generation."""
    tokenizer = glm_jax.load_tokenizer({"chatglm": ICE_TEXT, "chatglm3": PIECES}[kind], kind=kind)
    (made,) = maker(tokenizer, fills_blanks).examples(RECORD)
    messages = [
        {"role": "user", "content": RECORD["source"]},
        {"role": "assistant", "content": RECORD["target"]},
    ]
    expected = example_of(tokenizer.training_example(messages), fills_blanks)
    assert made.tokens.tolist() == expected.tokens.tolist()
    assert made.learnt.tolist() == expected.learnt.tolist()
    assert made.prefix == expected.prefix


def test_a_causal_model_without_a_chat_format():
    (made,) = maker(fills_blanks=False).examples(RECORD)
    assert made.prefix == 0
    assert made.learnt.sum() == len(TOKENIZER.encode("God made it")) + 1


def test_mistakes():
    with pytest.raises(UserError, match=r"no column 'source' \(examples.source_field\)"):
        maker().examples({"src": "a", "target": "b"})
    with pytest.raises(UserError, match="'target' must be a text; got 3"):
        maker().examples({"source": "a", "target": 3})
    with pytest.raises(UserError, match="spells a special token"):
        maker().examples({"source": "a [gMASK]", "target": "b"})


def listed(path):
    files = example_files(str(path))
    return [(one.line, one.values) for one in records(files, Skipped())]


def test_texts_side_by_side(tmp_path):
    (tmp_path / "a.source").write_text("one \n\ntwo\n\n")
    (tmp_path / "a.target").write_text("1\n\n2\n\n")
    assert listed(tmp_path / "*.source") == [
        (1, {"source": "one", "target": "1"}),
        (3, {"source": "two", "target": "2"}),
    ]
    files = [tmp_path / "a.source"]
    assert with_targets(files) == [tmp_path / "a.source", tmp_path / "a.target"]
    (tmp_path / "a.target").write_text("1\n")
    with pytest.raises(UserError, match=r"as many lines; a.source goes on with line 2"):
        listed(tmp_path / "a.source")
    with pytest.raises(UserError, match=r"name the .source files"):
        listed(tmp_path / "a.target")
    (tmp_path / "a.target").unlink()
    with pytest.raises(UserError, match=r"there is no '.*a.target' beside a.source"):
        listed(tmp_path / "a.source")


def test_a_table(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('text\tlabel\n"a" b\tgood\n\nc\tbad\n')
    assert listed(path) == [
        (2, {"text": '"a" b', "label": "good"}),
        (4, {"text": "c", "label": "bad"}),
    ]
    path.write_text("text\tlabel\na\n")
    with pytest.raises(UserError, match="line 2 must have 2 columns, as line 1; it has 1"):
        listed(path)
    path.write_text("text\ttext\na\tb\n")
    with pytest.raises(UserError, match="line 1 must name each column once"):
        listed(path)


def test_a_store_knows_the_targets_too(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.source").write_text("one\ntwo\nthree\n")
    data = DataConfig(source=str(tmp_path / "a.source"))
    config = Config(data=data, examples=ExamplesConfig(format="seq2seq"))
    keys = set()
    for text in ("1\n2\n3\n", "1\n2\n4\n"):
        (tmp_path / "a.target").write_text(text)
        keys.add(store_key(config))
        assert [one["name"][-8:] for one in described_files(config)] == ["a.source", "a.target"]
    assert len(keys) == 2
