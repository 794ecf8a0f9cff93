"""Tiny runs on rollouts: prompts, a file with rewards, and a config over both."""

import json

from glm_jax.config import (
    Config,
    DataConfig,
    ExamplesConfig,
    ModelConfig,
    OptimizerConfig,
    PolicyConfig,
    RolloutsConfig,
    TrainConfig,
)
from tests.pair_runs import save_base, tune
from tests.tiny_run import change_fields

__all__ = ["config_of", "prepared", "save_base", "tune", "write_files"]

REWARDS = """
import math
import os
import time


def letters(prompt, answer, example):
    return len(answer) % 5 + example["number"] / 10


def named(prompt, answer, example):
    return float(example["answer"] in answer)


def raises(prompt, answer, example):
    raise ValueError("no " + answer)


def hangs(prompt, answer, example):
    time.sleep(1000)


def nothing(prompt, answer, example):
    return math.nan


def dies(prompt, answer, example):
    os._exit(3)


def talks(prompt, answer, example):
    print("a word on standard output")
    return 1


number = 3
"""


def write_files(folder, count=20):
    """prompts.jsonl and rewards.py in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [{"prompt": f"Say {n}", "answer": str(n), "number": n} for n in range(count)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "rewards.py").write_text(REWARDS)
    return folder / "prompts.jsonl"


def config_of(base, prompts, loss="grpo", **sections):
    """A run of 4 steps of 8 answers; `config_of(.., lora={"rank": 2})` changes sections."""
    config = Config(
        model=ModelConfig(dropout_rate=0.0, attention_dropout_rate=0.0, value_head=loss == "ppo"),
        data=DataConfig(
            source=str(prompts),
            store=str(prompts.with_name("store")),
            tokenizer=str(base),
            sequence_length=64,
            batch_size=8,
            eval_fraction=0.2,
        ),
        examples=ExamplesConfig(format="prompts"),
        optimizer=OptimizerConfig(
            peak_learning_rate=1e-2, warmup_steps=0, schedule="constant", weight_decay=0.0
        ),
        train=TrainConfig(
            num_steps=4,
            init_from=str(base),
            loss=loss,
            log_every=1,
            eval_every=0,
            eval_batches=1,
            sample_every=0,
            checkpoint_every=2,
        ),
        rollouts=RolloutsConfig(
            group_size=4,
            max_new_tokens=6,
            reward=f"{prompts.with_name('rewards.py')}:letters",
        ),
        policy=PolicyConfig(),
    )
    return change_fields(config, **sections)


def prepared(folder, kind="causal", loss="grpo", **sections):
    """A config in a folder, whose model and files are made where they are missing."""
    base, prompts = folder / f"base_{kind}", folder / "files" / "prompts.jsonl"
    if not base.exists():
        save_base(base, kind)
    if not prompts.exists():
        write_files(prompts.parent)
    data = {"store": str(folder / f"store_{kind}"), **sections.pop("data", {})}
    return config_of(base, prompts, loss, data=data, **sections)
