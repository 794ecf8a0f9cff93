"""Aligns a chat model with pairs of answers (DPO), then asks it what it was asked before.

    python examples/chat_model/talks.py
    python -m glm_jax.train --config examples/chat_model/config.py --workdir runs/talker
    python examples/dpo.py [--init_from DIR] [--steps 40] [--workdir DIR]

The first two lines make a small model; any ChatGLM or GLM-4 directory will do as well. That model
has read whole talks, and sometimes says the next question too. Of each pair the answer that ends is
preferred to one that goes on.

It prints (shortened; the small model had 400 steps)

    reference   train: 31 of 31 pairs
    step 10/40  loss 0.603  accuracy 1.000  learning rate 9.55e-05  2,096 tokens/s  00:14 left
    step 40: held out 0.483, accuracy 1.000
    before: '你好！有什么可以帮你？\\n\\n[Round 4]\\n\\n问：What is my name?\\n\\n答：'
    after: '你好！有什么可以帮你？'
"""

import argparse
import json
import runpy
from pathlib import Path

import glm_jax
from glm_jax.config import Config
from glm_jax.config.files import load_config
from glm_jax.data.stream import RowStream
from glm_jax.pipeline.references import with_reference
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.loop import train
from glm_jax.training.run.start import starting_point

HERE = Path(__file__).parent
CONFIG = HERE.parent / "configs" / "align" / "dpo_cpu.py"
SAID = (
    *("法国的首都是哪里？", "法国的首都是巴黎。"),
    *("What is the capital of Japan?", "The capital of Japan is Tokyo."),
    "你好",
)
QUESTION = [
    {"role": "assistant" if number % 2 else "user", "content": text}
    for number, text in enumerate(SAID)
]


def write_pairs(path: Path) -> None:
    """{"prompt": "Hello", "chosen": "Hello! How can I help you?", "rejected": that and more}"""
    talks = runpy.run_path(str(HERE / "chat_model" / "talks.py"))
    rounds = [
        *talks["TALK"].items(),
        *((f"{line}的下一句是什么？", f"{other}。") for line, other in talks["LINES"].items()),
        *(
            (f"{country}的首都是哪里？", f"{country}的首都是{capital}。")
            for country, (capital, _, _) in talks["CAPITALS"].items()
        ),
        *(
            (f"{word}用英语怎么说？", f"{word}的英语是{english}。")
            for word, english in talks["WORDS"].items()
        ),
    ]
    pairs = [
        {
            "prompt": question,
            "chosen": answer,
            "rejected": f"{answer}\n\n[Round 2]\n\n问：{following}",
        }
        for (question, answer), (following, _) in zip(rounds, rounds[1:] + rounds[:1], strict=True)
    ]
    lines = [json.dumps(pair, ensure_ascii=False) for pair in pairs]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def get_config(init_from: str, source: Path, num_steps: int) -> Config:
    options = {
        "data.source": source,
        "data.tokenizer": init_from,
        "train.init_from": init_from,
        "train.num_steps": num_steps,
    }
    return load_config(CONFIG, [f"{name}={value}" for name, value in options.items()])


def main(argv: list[str] | None = None) -> tuple[str, str]:
    """Returns what the model says to a question before and after."""
    parser = argparse.ArgumentParser(description="Aligns a chat model with pairs of answers.")
    parser.add_argument("--init_from", default="runs/talker", help="a model with a chat format")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--workdir", type=Path, default=Path("runs/aligned"))
    parser.add_argument("--write", type=Path, help="write the pairs there, and end")
    args = parser.parse_args(argv)
    source = args.write or args.workdir.with_name(f"{args.workdir.name}_pairs.jsonl")
    write_pairs(source)
    if args.write:
        return "", ""
    before = glm_jax.load(args.init_from).chat(QUESTION, max_new_tokens=24)["content"]

    # What `python -m glm_jax.train --config configs/align/dpo_cpu.py` does: the model that the run
    # begins with is the reference, and is asked once.
    config = get_config(args.init_from, source, args.steps)
    mesh = make_mesh(config.mesh)
    config, params = starting_point(config, args.workdir, mesh)
    config = with_reference(config, args.workdir, mesh, params)

    def open_batches(split: str, shard_index: int, num_shards: int) -> RowStream:
        return glm_jax.batches(config, split, shard_index, num_shards)

    tokenizer = glm_jax.load_tokenizer(config.data.tokenizer)
    if status := train(config, args.workdir, open_batches, tokenizer, params):
        raise SystemExit(status)

    after = glm_jax.load(args.workdir).chat(QUESTION, max_new_tokens=24)["content"]
    print(f"before: {before!r}\nafter: {after!r}")
    return before, after


if __name__ == "__main__":
    main()
