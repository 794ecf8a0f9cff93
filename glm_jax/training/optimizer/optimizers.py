"""AdamW with the published decay groups, global-norm clipping and learning-rate schedules."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from glm_jax.config.training import OptimizerConfig
from glm_jax.models.weights import decay_mask
from glm_jax.training.optimizer.adafactor import scale_by_factored_moments

Schedule = Callable[[Any], jax.Array]


def learning_rate_schedule(config: OptimizerConfig, num_steps: int) -> Schedule:
    """The learning rate of each step.

    With W warm-up steps, N `decay_steps`, peak p and floor f = final_ratio:

        step < W     p * step / W
        cosine       p * (f + (1 - f) * (1 + cos(pi * progress)) / 2)
        linear       p * (1 - (1 - f) * progress)
        constant     p

    where progress = (step - W) / (N - W), held at 1 from step N on. In the published code the
    linear schedule keeps falling after N and becomes negative; "linear_published" does so too.

    A run that was extended (`config.extended`) after step S from N to M steps keeps the rates that
    it had. Within W steps it then moves to the rates of a run of M steps:

        step          0    W         S = N       S + W                   M
        rate          0    p  ....   f p         that of M steps  ....   f p

    Args:
      config: `decay_steps` None means `num_steps`.
      num_steps: steps of the run.

    Returns:
      A function from the number of a step, 1 for the first, to a float32 scalar. Only
      "linear_published" can be negative.
    """
    extended = config.extended or ()
    ends = [*(end for _, end in extended), num_steps]
    schedule = _in_one_go(config, ends[0])
    for (last, _), end in zip(extended, ends[1:], strict=True):
        schedule = _joined(schedule, last, _in_one_go(config, end), config.warmup_steps)
    return schedule


def _joined(before: Schedule, last: int, after: Schedule, warmup: int) -> Schedule:
    """`before` up to step `last`, then interpolated to `after` within `warmup` steps."""

    def schedule(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        share = jnp.clip((step - last) / max(warmup, 1), 0.0, 1.0)
        later = before(last) + share * (after(step) - before(last))
        return jnp.where(step <= last, before(step), later)

    return schedule


def _in_one_go(config: OptimizerConfig, num_steps: int) -> Schedule:
    """The schedule of a run that was never extended."""
    peak, floor, warmup = config.peak_learning_rate, config.final_ratio, config.warmup_steps
    decay_steps = num_steps if config.decay_steps is None else config.decay_steps

    def schedule(step: Any) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        fall = max(decay_steps - warmup, 1)
        progress = jnp.clip((step - warmup) / fall, 0.0, 1.0)
        if config.schedule == "cosine":
            factor = floor + (1 - floor) * (1 + jnp.cos(jnp.pi * progress)) / 2
        elif config.schedule == "linear":
            factor = 1 - (1 - floor) * progress
        elif config.schedule == "linear_published":
            # Counted from step N: near it the factor is small, and 1 - progress would lose digits.
            factor = floor + (1 - floor) * (decay_steps - step) / fall
        else:
            factor = jnp.ones(())
        return peak * jnp.where(step < warmup, step / max(warmup, 1), factor)

    return schedule


def make_optimizer(config: OptimizerConfig, schedule: Schedule) -> optax.GradientTransformation:
    """AdamW, or Adafactor with the same decay and schedule, as `config.name` says.

    AdamW is that of PyTorch: decoupled decay, bias-corrected moments, epsilon outside the root. For
    Adafactor see `glm_jax.training.optimizer.adafactor`. Norms and biases do not decay; token and
    position embeddings do, as published. Clipping is apart, `clip`, since its norm is a metric too.
    """

    def rate(count: Any) -> jax.Array:
        # optax counts finished steps; a schedule takes the number of the current step.
        return schedule(count + 1)

    if config.name == "adafactor":
        return optax.chain(
            scale_by_factored_moments(),
            optax.add_decayed_weights(config.weight_decay, decay_mask),
            optax.scale_by_learning_rate(rate),
        )
    return optax.adamw(
        rate,
        b1=config.beta1,
        b2=config.beta2,
        eps=config.epsilon,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )


def global_norm(gradients: Any) -> jax.Array:
    """Euclidean norm over all arrays of a tree, computed in float32."""
    squares = [jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in jax.tree.leaves(gradients)]
    return jnp.sqrt(sum(squares))


def clip(gradients: Any, norm: jax.Array, largest: float | None) -> Any:
    """Scales a gradient by min(1, largest / (norm + 1e-6)), as the published code does.

    Args:
      gradients: a tree of arrays.
      norm: its global norm.
      largest: None: no clipping.
    """
    if largest is None:
        return gradients
    scale = jnp.minimum(1.0, largest / (norm + 1e-6))
    return jax.tree.map(lambda gradient: gradient * scale.astype(gradient.dtype), gradients)
