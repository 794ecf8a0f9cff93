"""Tunes a chat model, all of it, on a file of conversations, then talks with it.

    python examples/chat_model/talks.py
    python -m glm_jax.train --config examples/chat_model/config.py --workdir runs/talker
    python examples/finetune.py [--init_from DIR] [--steps 100] [--workdir DIR]

The first two lines make a small model; any ChatGLM or GLM-4 directory will do as well.
It prints (shortened; the small model had 160 steps)

    210 examples
    start       a new run in runs/tuned, with the parameters of runs/talker
    step 10/100  loss 2.705  learning rate 3.00e-03  1,514 tokens/s  01:00 left
    step 100: held out 0.006 (unigram 3.222), answer 0.006 (unigram 3.222)
    before: '再见\\n\\n[Round 2]\\n\\n问：What is 4 plus 4?\\n\\n答：'
    after: '雪是白色的。'
"""

import argparse
import dataclasses
import json
import runpy
from pathlib import Path

import glm_jax
from glm_jax.config import Config
from glm_jax.data.stream import RowStream
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.loop import train
from glm_jax.training.run.start import starting_point

CONFIG = Path(__file__).parents[1] / "configs" / "finetune" / "chat_cpu.py"
COLOURS = {"天空": "蓝色", "草": "绿色", "雪": "白色", "太阳": "红色", "煤": "黑色"}
QUESTION = {"role": "user", "content": "雪是什么颜色的？"}


def write(path: Path) -> None:
    """A conversation a line: colours of things, asked in two ways, one or two in a row."""
    rounds = [
        [
            {"role": "user", "content": question.format(thing)},
            {"role": "assistant", "content": f"{thing}是{colour}的。"},
        ]
        for thing, colour in COLOURS.items()
        for question in ("{}是什么颜色的？", "{}的颜色是什么？")
    ]
    talks = rounds + [[*first, *second] for first in rounds for second in rounds]
    lines = [json.dumps({"messages": talk}, ensure_ascii=False) for talk in talks]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines), encoding="utf-8")


def get_config(init_from: str, source: Path, num_steps: int) -> Config:
    config: Config = runpy.run_path(str(CONFIG))["get_config"]()
    return dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, source=str(source), tokenizer=init_from),
        train=dataclasses.replace(config.train, init_from=init_from, num_steps=num_steps),
    )


def main(argv: list[str] | None = None) -> tuple[str, str]:
    """Returns what the model says to a question before and after."""
    parser = argparse.ArgumentParser(description="Tunes a chat model on conversations.")
    parser.add_argument("--init_from", default="runs/talker", help="a model with a chat format")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--workdir", type=Path, default=Path("runs/tuned"))
    parser.add_argument("--write", type=Path, help="write the conversations there, and end")
    args = parser.parse_args(argv)
    source = args.write or args.workdir.with_name(f"{args.workdir.name}_talks.jsonl")
    write(source)
    if args.write:
        return "", ""
    before = glm_jax.load(args.init_from).chat([QUESTION], max_new_tokens=24)["content"]

    # What `python -m glm_jax.train --config configs/finetune/chat_cpu.py` does.
    config = get_config(args.init_from, source, args.steps)
    config, params = starting_point(config, args.workdir, make_mesh(config.mesh))

    def open_batches(split: str, shard_index: int, num_shards: int) -> RowStream:
        return glm_jax.batches(config, split, shard_index, num_shards)

    tokenizer = glm_jax.load_tokenizer(config.data.tokenizer)
    if status := train(config, args.workdir, open_batches, tokenizer, params):
        raise SystemExit(status)  # 130 after Ctrl-C, for one: the same command goes on

    after = glm_jax.load(args.workdir).chat([QUESTION], max_new_tokens=24)["content"]
    print(f"before: {before!r}\nafter: {after!r}")
    return before, after


if __name__ == "__main__":
    main()
