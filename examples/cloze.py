"""Tunes the bundled model on a cloze, and asks it before and after: is a sentence of Moses' days?

    python examples/cloze.py [--steps 40] [--workdir runs/cloze]

The sentences are of the bundled corpus, and the blank behind each is filled with one of two names.
It prints (shortened)

    step 40/40  loss 0.105  learning rate 3.00e-05  455 tokens/s
    ...
    before: 0.790 of 195 held-out sentences right (± 0.029; by chance 0.50)
    after: 0.862 of 195 held-out sentences right (± 0.025; by chance 0.50)
    The priest shall burn it on the altar. This was in the days of Moses.
"""

import argparse
import json
import re
from pathlib import Path

import glm_jax
from glm_jax.config import Config
from glm_jax.config.files import load_config
from glm_jax.data.stream import RowStream
from glm_jax.evaluation.data import training_chapters
from glm_jax.evaluation.held_out_cloze import accuracy
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.loop import train
from glm_jax.training.run.start import starting_point

CONFIG = Path(__file__).parents[1] / "configs" / "finetune" / "cloze_cpu.py"
SENTENCES = 400  # of each of the two
NAMES = re.compile(r"Moses|Jesus|Christ")  # would give the answer away


def write_sentences(path: Path) -> None:
    """Sentences of the bundled corpus: of its first chapters, the law, and of its last, the gospel.

    {"text": "The priest shall burn it on the altar.", "book": "law"}
    """
    chapters = training_chapters()
    lines = []
    for book, some in (("law", chapters[:150]), ("gospel", chapters[-100:])):
        found = [one.strip() for text in some for one in re.findall(r"[^.?!\n]+[.?!]", text)]
        kept = [one for one in found if 8 <= len(one.split()) <= 20 and not NAMES.search(one)]
        step = len(kept) // SENTENCES
        lines += [{"text": one, "book": book} for one in kept[: SENTENCES * step : step]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def get_config(workdir: Path, num_steps: int) -> Config:
    source = f"data.source={workdir / 'sentences.jsonl'}"
    return load_config(CONFIG, [source, f"train.num_steps={max(num_steps, 1)}"])


def main(argv: list[str] | None = None) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the held-out accuracy before and after."""
    parser = argparse.ArgumentParser(description="Tunes the bundled model on a cloze.")
    parser.add_argument("--steps", type=int, default=40, help="0: write the sentences alone")
    parser.add_argument("--workdir", type=Path, default=Path("runs/cloze"))
    args = parser.parse_args(argv)
    args.workdir.mkdir(parents=True, exist_ok=True)
    write_sentences(args.workdir / "sentences.jsonl")
    if not args.steps:
        return {}, {}

    # From here on, what `python -m glm_jax.train` and `python -m glm_jax.evaluate` do.
    config, run = get_config(args.workdir, args.steps), args.workdir / "run"
    before = accuracy(glm_jax.load("bundled"), config)
    config, params = starting_point(config, run, make_mesh(config.mesh))

    def open_batches(split: str, shard_index: int, num_shards: int) -> RowStream:
        return glm_jax.batches(config, split, shard_index, num_shards)

    tokenizer = glm_jax.load_tokenizer(config.data.tokenizer)
    if status := train(config, run, open_batches, tokenizer, params):
        raise SystemExit(status)

    lm = glm_jax.load(run)
    after = accuracy(lm, config)
    for name, found in (("before", before), ("after", after)):
        print(
            f"{name}: {found['accuracy']:.3f} of {found['examples']:.0f} held-out sentences right "
            f"(± {found['standard_error']:.3f}; by chance {found['chance']:.2f})"
        )
    print(lm.fill("The priest shall burn it on the altar. This was in the days of [MASK]."))
    return before, after


if __name__ == "__main__":
    main()
