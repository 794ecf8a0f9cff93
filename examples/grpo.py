"""Trains a model with rewards (GRPO): it guesses a number at first, and learns to count.

    python examples/grpo.py [--steps 250] [--workdir DIR]
    python examples/grpo.py --write DIR          writes the files alone

A question is "After three comes"; its reward is that of examples/counting/rewards.py, 1 for "four".
The model it begins with was taught that an answer is one word from zero to nine, and not which.

It prints (shortened)

    step 10/250  loss 0.015  reward 0.130  learning rate 7.00e-04  2,564 tokens/s  14:58 left
    step 250/250  loss 0.304  reward 0.958  learning rate 7.00e-04  3,878 tokens/s
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path

import glm_jax
from glm_jax.config import Config
from glm_jax.config.files import load_config
from glm_jax.data.stream import RowStream
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.loop import train
from glm_jax.training.run.start import starting_point

HERE = Path(__file__).parent
CONFIGS = HERE.parent / "configs" / "align"
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
QUESTIONS = ["After {} comes", "{} and then", "Count on from {}:"]


def write_files(folder: Path) -> None:
    """{"prompt": "After three comes", "answer": "four"}, and guesses to begin with."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = random.Random(0)
    prompts = [
        {"prompt": question.format(word), "answer": WORDS[(number + 1) % 10]}
        for question in QUESTIONS
        for number, word in enumerate(WORDS)
    ]
    guesses = [
        {"prompt": draws.choice(prompts)["prompt"], "response": draws.choice(WORDS)}
        for _ in range(3000)
    ]
    for name, lines in (("prompts", prompts), ("guesses", guesses)):
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / f"{name}.jsonl").write_text(text, encoding="utf-8")


def run(config: Config, workdir: Path) -> None:
    """What `python -m glm_jax.train` does."""
    config, params = starting_point(config, workdir, make_mesh(config.mesh))
    tokenizer = glm_jax.load_tokenizer(config.data.tokenizer)
    if status := train(config, workdir, _batches(config), tokenizer, params):
        raise SystemExit(status)


def _batches(config: Config) -> Callable[[str, int, int], RowStream]:
    def batches(split: str, shard_index: int, num_shards: int) -> RowStream:
        return glm_jax.batches(config, split, shard_index, num_shards)

    return batches


def rewards(workdir: Path) -> list[float]:
    """The mean reward of each step that was logged."""
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["reward"] for row in map(json.loads, lines) if "reward" in row]


def main(argv: list[str] | None = None) -> list[float]:
    """Returns the mean rewards, from the first to the last."""
    parser = argparse.ArgumentParser(description="Trains a model with rewards (GRPO).")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--guesses", type=int, default=120, help="steps of its beginning")
    parser.add_argument("--workdir", type=Path, default=Path("runs/counter"))
    parser.add_argument("--write", type=Path, help="write the files there, and end")
    args = parser.parse_args(argv)
    folder = args.write or args.workdir.with_name(f"{args.workdir.name}_files")
    write_files(folder)
    if args.write:
        return []
    base = args.workdir.with_name(f"{args.workdir.name}_base")
    guesser = [f"data.source={folder}/guesses.jsonl", f"train.num_steps={args.guesses}"]
    guesser += [f"train.checkpoint_every={args.guesses}"]
    run(load_config(CONFIGS / "guesser_cpu.py", guesser), base)
    grpo = [f"data.source={folder}/prompts.jsonl", f"train.init_from={base}"]
    grpo += [f"train.num_steps={args.steps}", "train.log_every=1"]
    grpo += [f"rollouts.reward={HERE}/counting/rewards.py:exact"]
    run(load_config(CONFIGS / "grpo_cpu.py", grpo), args.workdir)
    found = rewards(args.workdir)
    print(f"rewards: {found[0]:.2f} at first, {found[-1]:.2f} at last")
    return found


if __name__ == "__main__":
    main()
