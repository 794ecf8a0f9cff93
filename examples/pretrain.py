"""Pre-trains a tiny GLM on the bundled text, with the training loop written out.

    python examples/pretrain.py [--steps 300] [--workdir DIR]

It prints

    step 1: loss 9.031
    step 50: loss 6.733
    ...
    step 300: loss 5.057
    In the beginning, God created the heavens and the earth.

A guess among 7168 tokens costs ln 7168 = 8.88. After so few steps the model knows frequent words
and little else; `configs/demo_cpu.py` trains longer.
"""

import argparse

import jax
import numpy as np

import glm_jax
from glm_jax.config import (
    Config,
    DataConfig,
    ModelConfig,
    ObjectiveConfig,
    OptimizerConfig,
    TrainConfig,
)
from glm_jax.sharding.mesh import batch_sharding, make_mesh
from glm_jax.training.state import create_state
from glm_jax.training.step import make_train_step


def get_config(num_steps: int) -> Config:
    return Config(
        model=ModelConfig(
            vocab_size=7168,  # of the bundled vocabulary
            num_layers=2,
            embed_dim=128,
            num_heads=4,
            max_positions=64,
            initializer_range=0.05,
            # A short run reads each text once or less; there is nothing to regularise.
            dropout_rate=0.0,
            attention_dropout_rate=0.0,
        ),
        data=DataConfig(source="bundled:en", sequence_length=64, batch_size=16),
        # Shares of the rows: spans cut out of a text, and texts read from left to right.
        objective=ObjectiveConfig(span_rate=0.6, causal_rate=0.4, mean_span_length=1.0),
        optimizer=OptimizerConfig(peak_learning_rate=2e-3, warmup_steps=min(30, num_steps // 4)),
        train=TrainConfig(num_steps=num_steps, local_start=True),
    )


def main(argv: list[str] | None = None) -> list[float]:
    """Returns the loss of each step."""
    parser = argparse.ArgumentParser(description="Pre-trains a tiny GLM on the bundled text.")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--workdir", help="where to save the model; without it nothing is saved")
    args = parser.parse_args(argv)

    config = get_config(args.steps)
    stream = glm_jax.batches(config)  # numpy Batches; the text is tokenised once
    mesh = make_mesh(config.mesh)  # of all devices
    state = create_state(config, mesh)  # step, parameters, optimizer
    train_step = make_train_step(config, mesh)  # compiled at its first call

    losses: list[float] = []
    for step in range(1, args.steps + 1):
        batch = jax.device_put(next(stream), batch_sharding(mesh))
        state, metrics = train_step(state, batch)  # the arrays of the old state are reused
        losses.append(float(metrics["loss"]))
        if step == 1 or step % 50 == 0 or step == args.steps:
            # Batches differ, so one loss says little: the mean of the last 50.
            print(f"step {step}: loss {np.mean(losses[-50:]):.3f}")

    tokenizer = glm_jax.load_tokenizer(config.data.tokenizer)
    lm = glm_jax.LanguageModel(config.resolved_model, state.params, tokenizer)
    print(lm.fill("In the beginning, God created the heavens and [MASK] earth."))
    if args.workdir:
        lm.save(args.workdir)  # a Hugging Face directory; glm_jax.load reads it
    return losses


if __name__ == "__main__":
    main()
