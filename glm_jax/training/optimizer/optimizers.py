"""AdamW with the published decay groups, global-norm clipping and learning-rate schedules."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Float32

from glm_jax.config.training import OptimizerConfig
from glm_jax.models.trees import Params
from glm_jax.models.weights import decay_mask
from glm_jax.training.optimizer.adafactor import scale_by_factored_moments

Schedule = Callable[[ArrayLike], Float32[jax.Array, ""]]


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

    def schedule(step: ArrayLike) -> jax.Array:
        share = jnp.clip((jnp.asarray(step) - last) / max(warmup, 1), 0.0, 1.0)
        later = before(last) + share * (after(step) - before(last))
        return jnp.where(share > 0, later, before(step))

    return schedule


def _in_one_go(config: OptimizerConfig, num_steps: int) -> Schedule:
    """The schedule of a run that was never extended."""
    peak, warmup = config.peak_learning_rate, config.warmup_steps
    decay_steps = num_steps if config.decay_steps is None else config.decay_steps
    fall, floor = max(decay_steps - warmup, 1), config.final_ratio * peak

    # optax counts from the end, p * (1 - (1 - step / W)): the first steps lose digits.
    def rise(step: ArrayLike) -> jax.Array:
        return peak * (jnp.asarray(step) / max(warmup, 1))

    # Counted from step N, near which the rate is small.
    def published(since: ArrayLike) -> jax.Array:
        return floor + (peak - floor) * (decay_steps - warmup - jnp.asarray(since)) / fall

    decay: dict[str, optax.Schedule] = {
        "cosine": optax.cosine_decay_schedule(peak, fall, config.final_ratio),
        "linear": optax.linear_schedule(peak, floor, fall),
        "linear_published": published,
        "constant": optax.constant_schedule(peak),
    }
    joined = optax.join_schedules([rise, decay[config.schedule]], [warmup])
    return lambda step: jnp.asarray(joined(step))


def make_optimizer(config: OptimizerConfig, schedule: Schedule) -> optax.GradientTransformation:
    """AdamW, or Adafactor with the same decay and schedule, as `config.name` says.

    AdamW is that of PyTorch: decoupled decay, bias-corrected moments, epsilon outside the root. For
    Adafactor see `glm_jax.training.optimizer.adafactor`. Norms and biases do not decay; token and
    position embeddings do, as published. Clipping is apart, `clip`, since its norm is a metric too.
    """

    def rate(count: jax.Array) -> jax.Array:
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


def global_norm(gradients: Params) -> Float32[jax.Array, ""]:
    """Euclidean norm over all arrays of a tree, computed in float32."""
    return optax.tree.norm(optax.tree.cast(gradients, jnp.float32))


def clip(gradients: Params, norm: Float32[jax.Array, ""], largest: float | None) -> Params:
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
