import dataclasses
import os
import shlex
import sys
from pathlib import Path

import pytest

from glm_jax.config import DataConfig, ExamplesConfig
from glm_jax.training.run.next_command import filling, going_on, longer
from tests.tokenizers.golden_chat import RANKS


def test_a_run_goes_on_by_the_same_command():
    assert going_on(rewound=False) == "the same command goes on"
    assert "without --resume_step" in going_on(rewound=True)


GENESIS = "In the beginning, God [MASK] the heavens and the earth."


@pytest.mark.parametrize(
    ("section", "prompt"),
    [
        ({"data": {"source": "bundled"}}, GENESIS),
        ({"data": {"mixture": "a=bundled:en@0.7, b=bundled:zh@0.3"}}, GENESIS),
        ({"data": {"source": "x/*.txt"}}, "A text of yours with a [MASK] in it."),
        ({"objective": {"span_rate": 0.0, "causal_rate": 1.0}}, "In the beginning"),
    ],
)
def test_the_model_is_used_by_a_command_that_a_shell_takes(config, section, prompt):
    for name, fields in section.items():
        values = {**dataclasses.asdict(getattr(config, name)), **fields}
        changed = type(getattr(config, name))(**values)
        config = dataclasses.replace(config, **{name: changed})
    said = filling(config, Path("runs/my demo"))
    start, _, command = said.partition(" ")
    words = shlex.split(command)
    assert start == "next:"
    assert os.path.samefile(words[0], sys.executable)
    assert words[1:] == ["-m", "glm_jax.generate", "--checkpoint", "runs/my demo", prompt]


def test_a_model_that_was_tuned_is_talked_to(config):
    config = dataclasses.replace(
        config,
        data=DataConfig(source="talks.jsonl", tokenizer=str(RANKS)),
        examples=ExamplesConfig(format="auto"),
    )
    words = ["-m", "glm_jax.chat", "--checkpoint", "runs/a"]
    assert shlex.split(filling(config, Path("runs/a")))[2:] == words
    bundled = dataclasses.replace(config.data, tokenizer="bundled")
    said = filling(dataclasses.replace(config, data=bundled), Path("runs/a"))
    assert said.endswith("runs/a 'A question of yours. [gMASK]'")


@pytest.mark.parametrize(
    ("position_encoding", "examples", "prompt"),
    [
        ("learned_block", {"pattern": "{text} It was [MASK]."}, "A text of yours. It was [MASK]."),
        ("learned", {"pattern": "{text} It was [MASK]."}, "A text of yours. It was"),
        ("learned_block", {"pattern": "rte"}, "A text of yours with a [MASK] in it."),
        ("learned", {"format": "seq2seq"}, "A question of yours."),
    ],
)
def test_a_model_is_asked_what_it_was_tuned_on(config, change, position_encoding, examples, prompt):
    config = dataclasses.replace(
        change(config, "model.position_encoding", position_encoding),
        data=DataConfig(source="clozes.jsonl"),
        examples=ExamplesConfig(**{"format": "cloze"} | examples),
    )
    assert shlex.split(filling(config, Path("runs/a")))[-1] == prompt


def test_longer(config, change):
    assert longer(config).endswith("--set train.num_steps=12 --extend")
    constant = change(config, "optimizer.schedule", "constant")
    assert longer(constant).endswith("--set train.num_steps=12")
