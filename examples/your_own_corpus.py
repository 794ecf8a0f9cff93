"""Trains on text of your own: text files and JSON lines in a folder, mixed by rates.

    python examples/your_own_corpus.py [--steps 250] [--workdir runs/own_corpus]

It prints (shortened)

    segment 1: 13 slots of part A, 3 of part B
      part A  [CLS]nine [MASK], seven, six, five, four.<|endoftext|>
      part B  position 2: , eight<|endofpiece|>
    ...
    step 1: loss 9.016
    step 250: loss 0.513
    three, four, five, six, seven.
    eight, seven, six, five, four.
"""

import argparse
import json
from pathlib import Path

import jax

import glm_jax
from glm_jax.config import Config
from glm_jax.data.picture import row_of, spell
from glm_jax.sharding.mesh import batch_sharding, make_mesh
from glm_jax.training.state import create_state
from glm_jax.training.step import make_train_step

DEMO = Path(__file__).parents[1] / "configs" / "demo_cpu.py"
NUMBERS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


def write_corpus(folder: Path) -> None:
    """Counting up in a text file, counting down in JSON lines."""
    folder.mkdir(parents=True, exist_ok=True)
    up = [NUMBERS[i:j] for i in range(7) for j in range(i + 4, 11)]
    texts = [", ".join(words) + "." for words in up]
    # An empty line ends a document.
    (folder / "up.txt").write_text("\n\n".join(texts), encoding="utf-8")
    # One object a line is one document; data.text_field says where its text is.
    lines = [json.dumps({"body": ", ".join(words[::-1]) + "."}) for words in up]
    (folder / "down.jsonl").write_text("\n".join(lines), encoding="utf-8")


def get_config(folder: Path, num_steps: int) -> Config:
    """The demo's config on other text, with a smaller model; commands take these as --set."""
    overrides = [
        # Rates are shares of the rows. One source alone: data.mixture=None, data.source=my/*.txt
        f"data.mixture=up={folder}/*.txt@0.75, down={folder}/*.jsonl@0.25",
        "data.text_field=body",
        "data.eval_fraction=0.1",  # the share of the documents that is held out
        "data.sequence_length=32",
        "model.num_layers=2",
        "objective.span_rate=1.0",
        *[f"objective.{other}_rate=0.0" for other in ("sentence", "document", "causal")],
        f"optimizer.warmup_steps={min(20, num_steps // 4)}",
        f"train.num_steps={num_steps}",
    ]
    return glm_jax.load_config(DEMO, overrides)


def main(argv: list[str] | None = None) -> list[float]:
    """Returns the loss of each step."""
    parser = argparse.ArgumentParser(description="Trains on a folder of text.")
    parser.add_argument("--steps", type=int, default=250)
    parser.add_argument("--workdir", type=Path, default=Path("runs/own_corpus"))
    args = parser.parse_args(argv)

    write_corpus(args.workdir / "text")
    config = get_config(args.workdir / "text", args.steps)
    tokenizer = glm_jax.load_tokenizer(config.data.tokenizer)
    stream = glm_jax.batches(config)  # tokenises the text once, then reads the token store

    # Look at rows before training on them; `python -m glm_jax.preview` shows more of each.
    batch = next(stream)
    for row in (row_of(batch, 0), row_of(batch, 1)):
        print(spell(row, tokenizer.decode))

    mesh = make_mesh(config.mesh)
    state = create_state(config, mesh)
    train_step = make_train_step(config, mesh)
    losses: list[float] = []
    for step in range(1, args.steps + 1):
        state, metrics = train_step(state, jax.device_put(batch, batch_sharding(mesh)))
        batch = next(stream)
        losses.append(float(metrics["loss"]))
        if step == 1 or step % 50 == 0:
            print(f"step {step}: loss {losses[-1]:.3f}")

    lm = glm_jax.LanguageModel(config.resolved_model, state.params, tokenizer)
    for text in ("three, four, [MASK], six, seven.", "eight, seven, [MASK], five, four."):
        print(lm.fill(text, max_new_tokens=4))
    return losses


if __name__ == "__main__":
    main()
