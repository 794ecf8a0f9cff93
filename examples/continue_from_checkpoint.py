"""Goes on from a checkpoint on other text: a model that fills blanks, now on Chinese alone.

    python examples/continue_from_checkpoint.py [--init_from DIR] [--steps 100] [--workdir DIR]

It prints (shortened)

    start       a new run in runs/continued, with the parameters of bundled
    step 20/100  loss 3.444  learning rate 5.00e-04  5,692 tokens/s  00:14 left
    ...
    bundled:zh: held-out loss 4.413 before, 3.876 after
    bundled:en: held-out loss 2.379 before, 2.312 after

The same command with `--steps 200` goes on after step 100. Then Chinese is at 3.807, and English
at 2.993: the model forgets what it no longer reads.
"""

import argparse
from pathlib import Path

import glm_jax
from glm_jax.config import Config, DataConfig, ObjectiveConfig, OptimizerConfig, TrainConfig
from glm_jax.data.stream import RowStream
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.loop import train
from glm_jax.training.run.start import starting_point


def get_config(init_from: str, num_steps: int, source: str = "bundled:zh") -> Config:
    return Config(
        # There is no `model`: the run has the shape of the checkpoint, and its tokenizer.
        data=DataConfig(source=source, tokenizer=init_from, sequence_length=64, batch_size=16),
        objective=ObjectiveConfig(span_rate=1.0, mean_span_length=1.0),
        # A constant rate does not depend on the number of steps, so more steps can follow later.
        optimizer=OptimizerConfig(peak_learning_rate=5e-4, schedule="constant", warmup_steps=10),
        train=TrainConfig(
            num_steps=num_steps,
            init_from=init_from,
            log_every=20,
            eval_every=0,
            eval_batches=2,
            checkpoint_every=50,
        ),
    )


def held_out_losses(lm: glm_jax.LanguageModel, init_from: str) -> dict[str, float]:
    """The loss on texts that no training has seen, by language."""
    losses = {}
    for source in ("bundled:zh", "bundled:en"):
        stream = glm_jax.batches(get_config(init_from, 1, source), split="eval")
        losses[source] = sum(float(lm.loss(next(stream))) for _ in range(2)) / 2
    return losses


def main(argv: list[str] | None = None) -> tuple[dict[str, float], dict[str, float]]:
    """Returns the held-out losses before and after."""
    parser = argparse.ArgumentParser(description="Goes on from a checkpoint on other text.")
    parser.add_argument("--init_from", default="bundled", help="a workdir or a saved model")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--workdir", type=Path, default=Path("runs/continued"))
    args = parser.parse_args(argv)

    before = held_out_losses(glm_jax.load(args.init_from), args.init_from)

    # From here on, what `python -m glm_jax.train --set train.init_from=...` does.
    config = get_config(args.init_from, args.steps)
    config, params = starting_point(config, args.workdir, make_mesh(config.mesh))

    def open_batches(split: str, shard_index: int, num_shards: int) -> RowStream:
        return glm_jax.batches(config, split, shard_index, num_shards)

    tokenizer = glm_jax.load_tokenizer(config.data.tokenizer)
    status = train(config, args.workdir, open_batches, tokenizer, params)
    if status:  # 130 after Ctrl-C, for one: the same command goes on where it stopped
        raise SystemExit(status)

    after = held_out_losses(glm_jax.load(args.workdir), args.init_from)
    for source in before:
        print(f"{source}: held-out loss {before[source]:.3f} before, {after[source]:.3f} after")
    return before, after


if __name__ == "__main__":
    main()
