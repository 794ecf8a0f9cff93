"""The tables of tools/prove_tuning.py, and which claims they hold; the runs themselves nightly."""

import dataclasses
import importlib.util
import json
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from glm_jax.config.files import load_config
from glm_jax.data.examples.clozes import ClozeMaker
from glm_jax.evaluation.asked import hit
from glm_jax.evaluation.kinds import KINDS
from glm_jax.evaluation.prompting import Prompts
from glm_jax.evaluation.results import Result, Shown
from glm_jax.evaluation.task_files import read_tasks
from glm_jax.tokenizers.tokenizer import load_tokenizer

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "configs" / "proofs"


def module_of(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # its dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tool():
    return module_of("prove_tuning")


def result(right, count=200):
    """A task of `count` examples, of which the first `right` are right."""
    rows = np.stack([hit(i < right) for i in range(count)])
    shown = [Shown("", "", "")] * count
    return Result("test", "choice", "f", 0, {"accuracy": rows}, {}, shown)


class Made:
    """`Proofs` whose runs are done: right answers of 200, losses and rates by arm."""

    def __init__(self, right, losses=None):
        self.seeds, self._right, self._losses = (0, 1), right, losses or {}

    def rate(self, name):
        return 0.001

    def validated(self, name):
        return {} if name in ("untuned", "bundled") else {0.001: 0.75, 0.01: 0.5}

    def tested(self, name, seed, task="test"):
        found = result(self._right[name][seed])
        if task == "calibrated":
            found.rows["accuracy_unconditional"] = found.rows["accuracy"]
        return found

    def loss(self, name, seed):
        return self._losses[name][seed]

    def lines(self, split):
        return [{"text": "甲乙", "label": "good"}, {"text": "丙丁", "label": "bad"}]


def test_the_cloze_is_won_where_every_seed_is_beyond_chance(tool):
    right = {"full": (160, 160), "untuned": (100, 100), "scratch": (140, 158), "causal": (165, 140)}
    table = tool.cloze(Made(right))
    assert table.verdicts == {
        "tuned above GLM, not tuned": True,
        # Two examples differ with seed 1: p is 0.5.
        "tuned above GLM, not pre-trained": False,
        # With seed 0 the twin is better.
        "tuned above causal twin, tuned": False,
    }
    assert len(table.cells) == 9
    assert table.cells[0][:4] == ["seed", "arm", "rate", "accuracy"]
    assert table.cells[1] == ["0", "GLM, tuned", "0.001", "0.8000", "0.0284", "", "", ""]
    seed, arm, rate, accuracy, _, difference, interval, p = table.cells[7]
    assert (seed, arm, rate, accuracy) == ("1", "GLM, not pre-trained", "0.001", "0.7900")
    assert (difference, p) == ("-0.0100", "0.5")
    assert interval.startswith("-0.0")
    assert table.cells[2][:3] == ["0", "GLM, not tuned", "-"]
    assert "not tuned, less the two words' scores without a review: 0.5000, 0.5000" in table.notes
    assert "GLM, tuned: on the validation reviews 0.7500 at 0.001, 0.5000 at 0.01" in table.notes


def test_adapters_may_be_two_points_below_on_average(tool):
    table = tool.adapters(Made({"tuned": (160, 160), "lora": (150, 162), "ptuning": (155, 156)}))
    # 5.0 below and 1.0 above; 2.5 and 2.0 below.
    assert table.verdicts == {"LoRA": True, "P-Tuning": False}
    assert "LoRA: -0.0200 on average" in table.notes


@pytest.mark.parametrize(
    ("mixed", "full", "holds"),
    [
        ((5.02, 5.08), (5.5, 5.5), True),
        ((5.1, 5.1), (5.5, 5.5), False),
        ((5.0, 5.0), (4.9, 5.0), False),
    ],
)
def test_forgetting_is_a_rise_of_the_loss(tool, mixed, full, holds):
    right = dict.fromkeys(("bundled", "tuned", "mixed"), (100, 100))
    losses = {"bundled": (5.0, 5.0), "tuned": full, "mixed": mixed}
    table = tool.forgetting(Made(right, losses))
    assert table.verdicts == {"texts mixed in keep the loss": holds}
    assert table.cells[3][1:4] == [
        "tuned, texts mixed in",
        f"{mixed[0]:.4f}",
        f"{mixed[0] - 5:+.4f}",
    ]


def test_a_table_says_what_is_missed(tool, tmp_path, capsys):
    table = tool.Table([["seed", "arm"], ["0", "LoRA"]], ["a note"], {"LoRA": True, "P": False})
    table.tell(tmp_path, "adapters")
    printed = capsys.readouterr().out
    claim = f"claim: {tool.CLAIMS['adapters']}"
    assert printed == f"seed  arm\n   0  LoRA\na note\n{claim}\nholds: LoRA\nMISSED: P\n"
    assert "MISSED: P" in (tmp_path / "adapters.md").read_text(encoding="utf-8")
    found = json.loads((tmp_path / "adapters.json").read_text(encoding="utf-8"))
    assert found["verdicts"] == {"LoRA": True, "P": False}
    assert found["claim"] == tool.CLAIMS["adapters"]


def test_the_best_rate_is_the_lowest_of_equal_ones_and_texts_have_that_of_tuned(tool, tmp_path):
    proofs = tool.Proofs(tmp_path, (0,), (), ())
    proofs.validated = lambda name: {0.003: 0.75, 0.001: 0.75, 0.01: 0.5}
    assert proofs.rate("lora") == 0.001
    proofs.validated = lambda name: {"tuned": {0.01: 0.5, 0.1: 0.6}}[name]
    assert proofs.rate("mixed") == 0.1


def test_a_seed_is_of_pre_training_and_of_tuning(tool, tmp_path, monkeypatch):
    assert tool.Seed.of("3") == tool.Seed(3, 3)
    assert str(tool.Seed(3, 3)) == "3"
    assert tool.Seed.of("0:1") == tool.Seed(0, 1)
    assert str(tool.Seed(0, 1)) == "0:1"
    for text in ("a", "", "1:2:3"):
        with pytest.raises(SystemExit, match="--seeds must be like 0,1"):
            tool.Seed.of(text)

    commands = []
    monkeypatch.setattr(tool, "_process", lambda command, at_end: commands.append(command))
    for name in ("data", "glm_0", "full_0-1_0.001"):
        (tmp_path / name).mkdir()
    (tmp_path / "data" / "calibrated.toml").touch()
    tool.Proofs(tmp_path, (), (), ())._run("full", tool.Seed(0, 1), 0.001)
    base, tuned = commands
    assert base[base.index("--workdir") + 1] == str(tmp_path / "glm_0")
    assert "train.seed=0" in base
    assert tuned[tuned.index("--workdir") + 1] == str(tmp_path / "full_0-1_0.001")
    assert {"train.seed=1", f"train.init_from={tmp_path / 'glm_0'}"} <= set(tuned)


@pytest.mark.parametrize(
    ("name", "rate", "expected"),
    [
        ("full", 0.001, "full_0-1_0.001"),
        ("untuned", None, "untuned_0"),
        # The bundled model and random parameters have no seed of pre-training.
        ("tuned", 0.001, "tuned_1_0.001"),
        ("scratch", 0.001, "scratch_1_0.001"),
        ("bundled", None, "bundled"),
    ],
)
def test_a_run_is_named_by_the_seeds_that_make_it(tool, tmp_path, name, rate, expected):
    proofs = tool.Proofs(tmp_path, (), (), ())
    assert proofs._name(name, tool.Seed(0, 1), rate) == expected


def test_runs_side_by_side_are_each_made_once(tool, tmp_path, monkeypatch):
    """What a stage makes in threads is what the tables then ask for, and nothing twice."""
    made = []

    def process(command, at_end=False):
        made.append(command)
        time.sleep(0.01)  # long enough for another thread to want the same
        if command[2] == "glm_jax.train":
            Path(command[command.index("--workdir") + 1]).mkdir()
        else:
            file = Path(command[command.index("--output") + 1])
            file.write_text(json.dumps({"metrics": {"loss": 5.0}}), encoding="utf-8")

    monkeypatch.setattr(tool, "_process", process)
    monkeypatch.setattr(tool, "read_results", lambda file: ("", [result(100)]))
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "calibrated.toml").touch()
    seeds = [tool.Seed(0, 0), tool.Seed(1, 1)]
    proofs = tool.Proofs(tmp_path, seeds, (), (), jobs=4)
    proofs.prepare(list(tool.PROOFS))
    commands = [" ".join(command) for command in made]
    assert len(commands) == len(set(commands))
    trained = [c for c in commands if "glm_jax.train" in c]
    # Bases of two seeds; rates of six arms; the best of each with the second seed; "mixed", at the
    # best rate of "tuned", with both.
    assert len(trained) == 2 * 2 + (3 * 4 + 3 * 3) + 6 + 2
    monkeypatch.setattr(tool, "_process", None)
    assert len(proofs.tested("lora", seeds[1]).rows["accuracy"]) == 200
    assert proofs.loss("mixed", seeds[1]) == 5.0


def test_characters_are_counted_by_label(tool):
    train = [{"text": "甲甲乙", "label": "good"}, {"text": "丙丙乙", "label": "bad"}]
    test = [
        {"text": "乙甲", "label": "good"},
        {"text": "丙戊乙", "label": "bad"},
        {"text": "丙", "label": "good"},
    ]
    assert tool.characters(train, test) == pytest.approx(2 / 3)


def test_arms_differ_in_what_they_are_named_for(tool):
    """Steps, rows, slots, reviews and the model are those of full tuning."""
    full = load_config(CONFIGS / "review.py")
    for name, arm in tool.ARMS.items():
        if arm.config is None:
            continue
        other = load_config(CONFIGS / f"{arm.config}.py")
        assert other.data == full.data, name
        assert other.optimizer == full.optimizer, name
        assert other.train.num_steps == full.train.num_steps, name
        assert other.model.dropout_rate == full.model.dropout_rate, name
        if name != "mixed":
            assert other.examples == full.examples, name
    glm, twin = (load_config(CONFIGS / f"{name}.py") for name in ("glm", "causal"))
    assert (glm.data, glm.optimizer, glm.train) == (twin.data, twin.optimizer, twin.train)
    assert glm.model.fills_blanks
    assert not twin.model.fills_blanks
    assert load_config(CONFIGS / "review_scratch.py").model.embed_dim == glm.model.embed_dim


@pytest.mark.parametrize("name", ["glm", "causal"])
def test_what_is_learnt_is_what_is_asked(name, tmp_path):
    """The ids of the tuning's cloze are those of the task, for both kinds of models."""
    reviews = module_of("make_reviews")
    for split in reviews.SIZES:
        line = {"text": "设施不算新，但是挺温馨的", "label": "good"}
        (tmp_path / f"{split}.jsonl").write_text(json.dumps(line) + "\n", encoding="utf-8")
    for task, text in reviews.TASKS.items():
        (tmp_path / f"{task}.toml").write_text(text, encoding="utf-8")
    model = load_config(CONFIGS / f"{name}.py").resolved_model
    tokenizer = load_tokenizer("bundled")
    maker = ClozeMaker(load_config(CONFIGS / "review.py").examples, tokenizer, model.fills_blanks)
    (cloze,) = maker.clozes(line)
    filled = maker.filled(cloze, cloze.answer)
    (task,) = [one for one in read_tasks(tmp_path) if one.name == "test"]
    (prepared,) = task.prepared(Prompts(tokenizer, model))
    pair = prepared.pairs[0]
    assert (pair.prompt, pair.answer) == (maker.blanks.prompt(filled), maker.blanks.scored(filled))
    assert task.spec.kind in KINDS


@pytest.mark.nightly
@pytest.mark.processes
def test_the_proofs_run_and_are_not_run_again(tool, tmp_path, monkeypatch, capfd):
    """All commands, of a tiny model, two steps each, on reviews made here."""
    reviews = module_of("make_reviews")
    for split in reviews.SIZES:
        lines = [
            {"text": f"{text}{i}", "label": label}
            for i in range(60)
            for text, label in (("很好的一本书，值得看", "good"), ("太差了，不值得看", "bad"))
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{split}.jsonl").write_text(text, encoding="utf-8")
    for task, text in reviews.TASKS.items():
        (tmp_path / "data" / f"{task}.toml").write_text(text, encoding="utf-8")
    few = {name: dataclasses.replace(arm, rates=arm.rates[:1]) for name, arm in tool.ARMS.items()}
    monkeypatch.setattr(tool, "ARMS", few)
    options = ["--out", str(tmp_path), "--seeds", "3"]
    tiny = ["train.num_steps=2", "train.eval_batches=1", "data.batch_size=2"]
    tiny += ["model.num_layers=1", "model.embed_dim=32", "model.num_heads=4"]
    options += [word for one in tiny for word in ("--set_pretraining", one)]
    options += [word for one in tiny[:3] for word in ("--set_tuning", one)]
    for proof in tool.PROOFS:
        tool.main([proof, *options])
    printed = capfd.readouterr().out
    assert printed.count("claim: ") == 3
    assert "MISSED: tuned above GLM, not tuned" in printed
    assert len(list((tmp_path / "results").glob("*.test.json"))) == 9
    assert len(list((tmp_path / "results").glob("*.texts.json"))) == 3
    found = json.loads((tmp_path / "forgetting.json").read_text(encoding="utf-8"))
    # The bundled model, which the tables in docs/proofs.md begin with.
    assert float(found["cells"][1][2]) == pytest.approx(3.1167, abs=2e-3)

    def nothing(command, at_end=False):
        raise AssertionError(command)

    monkeypatch.setattr(tool, "_process", nothing)
    for proof in tool.PROOFS:
        tool.main([proof, *options])
    assert capfd.readouterr().out == printed
    with pytest.raises(AssertionError, match="train"):
        tool.main(["cloze", *options[:2], "--seeds", "4"])

    with pytest.raises(SystemExit, match="is a run by another config; choose another --out"):
        tool.main(["cloze", *options, "--set_tuning", "train.num_steps=3"])
