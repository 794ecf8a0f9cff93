"""Aligns a chat model with pairs of answers (DPO), then asks it what it was asked before.

    python examples/chat_model/talks.py
    python -m glm_jax.train --config examples/chat_model/config.py --workdir runs/talker
    python examples/dpo.py [--init_from DIR] [--steps 40] [--workdir DIR]

The first two lines make a small model; any ChatGLM or GLM-4 directory will do as well. It has read
whole talks, and sometimes says the next question too: an answer that ends is preferred to that.

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
SAID = ["法国的首都是哪里？", "法国的首都是巴黎。", "What is the capital of Japan?"]
SAID += ["The capital of Japan is Tokyo.", "你好"]
ROLES = ("user", "assistant") * 2 + ("user",)
QUESTION = [{"role": role, "content": text} for role, text in zip(ROLES, SAID, strict=True)]


def write_pairs(path: Path) -> None:
    """{"prompt": "Hello", "chosen": "Hello! How can I help you?", "rejected": that and more}"""
    talks = runpy.run_path(str(HERE / "chat_model" / "talks.py"))
    rounds = [*talks["TALK"].items()]
    rounds += [(f"{one}的下一句是什么？", f"{two}。") for one, two in talks["LINES"].items()]
    rounds += [
        (f"{one}的首都是哪里？", f"{one}的首都是{names[0]}。")
        for one, names in talks["CAPITALS"].items()
    ]
    words = talks["WORDS"].items()
    rounds += [(f"{one}用英语怎么说？", f"{one}的英语是{two}。") for one, two in words]
    pairs = []
    for (prompt, answer), (other, _) in zip(rounds, rounds[1:] + rounds[:1], strict=True):
        more = f"{answer}\n\n[Round 2]\n\n问：{other}"
        pairs.append({"prompt": prompt, "chosen": answer, "rejected": more})
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs)
    path.write_text("".join(lines), encoding="utf-8")


def get_config(init_from: str, source: Path, num_steps: int) -> Config:
    options = [f"data.source={source}", f"data.tokenizer={init_from}"]
    options += [f"train.init_from={init_from}", f"train.num_steps={num_steps}"]
    return load_config(CONFIG, options)


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

    # What `python -m glm_jax.train` does: the model that the run begins with is asked once.
    config = get_config(args.init_from, source, args.steps)
    mesh = make_mesh(config.mesh)
    config, params = starting_point(config, args.workdir, mesh)
    config = with_reference(config, args.workdir, mesh, params)

    def open_batches(split: str, shard_index: int, num_shards: int) -> RowStream:
        return glm_jax.batches(config, split, shard_index, num_shards)

    tokenizer = glm_jax.load_tokenizer(args.init_from)
    if status := train(config, args.workdir, open_batches, tokenizer, params):
        raise SystemExit(status)

    after = glm_jax.load(args.workdir).chat(QUESTION, max_new_tokens=24)["content"]
    print(f"before: {before!r}\nafter: {after!r}")
    return before, after


if __name__ == "__main__":
    main()
