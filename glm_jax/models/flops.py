"""Parameters by group, and the FLOPs of a training step, in closed form.

A multiplication and an addition are two FLOPs. A training step costs, per token,

    6 * (parameters of matrices)  +  12 * L * N * H * (T * density + P)

A matrix costs 2 FLOPs per parameter forward and 4 backward, one that is not trained 2 backward, for
its inputs alone. Attention multiplies queries with keys
and weights with values: forward 4 * N * H per key that a query sees, of which there are
`density * T`, and the P keys of a trained prefix (arXiv:2204.02311, appendix B, has the formula
without either). What makes the prefix does not count: it runs once a step. The LM head
counts at every slot; a table that is only looked up does not count. Recomputation (`compute.remat`)
does not count either, so that utilisations can be compared.
"""

import math
from collections.abc import Mapping

import jax
from jaxtyping import PyTree

from glm_jax.config import Config
from glm_jax.config.model import ResolvedModel
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.models.prefix import is_prefix
from glm_jax.models.trees import Params, to_paths
from glm_jax.models.weights import is_weight

GROUPS = ("embedding", "attention", "mlp", "norms", "output", "prefix", "adapters", "other")


def parameter_groups(params: Params) -> dict[str, int]:
    """Number of parameters per group of `GROUPS`; a tied LM head is part of the embedding.

    A quantised matrix has as many as the plain one. What stands beside a matrix are adapters.

        ChatGLM2-6B -> embedding 266 M, attention 1057 M, mlp 4712 M, norms 0.2 M, output 266 M

    Args:
      params: nested dict of arrays, or of anything with a `shape`.
    """
    groups = dict.fromkeys(GROUPS, 0)
    for path, leaf in to_paths(params).items():
        groups[_group(path)] += math.prod(leaf.shape)
        groups["adapters"] += adapter_parameters(leaf)
    return groups


def adapter_parameters(leaf: PyTree) -> int:
    """Parameters beside a matrix, of a weight that says so (`Weight.beside`)."""
    return sum(math.prod(array.shape) for array in leaf.beside) if is_weight(leaf) else 0


def trained_parameters(trainable: Params) -> int:
    """Number of parameters of `TrainState.trainable`."""
    return sum(math.prod(array.shape) for array in jax.tree.leaves(trainable))


def _group(path: str) -> str:
    parts = path.split("/")
    if any(part.endswith("norm") for part in parts):
        return "norms"
    for part, group in (
        ("attention", "attention"),
        ("mlp", "mlp"),
        ("embedding", "embedding"),
        ("positions", "embedding"),
        ("output", "output"),
        ("prefix", "prefix"),
    ):
        if part in parts:
            return group
    return "other"


def matrix_parameters(params: Params, tied: bool = True) -> int:
    """Parameters that every token is multiplied with: all kernels, and the LM head.

    Args:
      params: as in `parameter_groups`, or a part of them.
      tied: the token embedding is the LM head where there is no other.
    """
    leaves = to_paths(params)
    kernels = sum(
        math.prod(leaf.shape)
        for path, leaf in leaves.items()
        if path.endswith("/kernel") and not is_prefix(path)
    )
    output = leaves.get("output/table", leaves.get("embedding/table") if tied else None)
    return kernels + (0 if output is None else math.prod(output.shape))


def attention_density(objective: ObjectiveConfig) -> float:
    """Fraction of the T x T (query, key) pairs that attention sees, if one text fills the row.

    A causal row sees half of them. In a GLM row with a fraction b of its slots in part B, every
    query sees part A, and a query of part B sees half of part B on average: (1 - b) + b^2 / 2.

        [MASK], 15 %  ->  b = 0.18, density 0.84          causal -> 0.5

    A row that packs several documents sees less, so this is an upper bound.
    """
    low, high = objective.document_min_ratio, objective.document_max_ratio
    mean, mean_square = (low + high) / 2, (low * low + low * high + high * high) / 3

    def of_part_b(share: float) -> float:
        return 1 - share + share * share / 2

    return (
        objective.causal_rate * 0.5
        + objective.span_rate * of_part_b(_span_share(objective))
        + objective.sentence_rate * of_part_b(objective.sentence_mask_ratio)
        + objective.document_rate * (1 - mean + mean_square / 2)
    )


def predicted_share(objective: ObjectiveConfig) -> float:
    """Fraction of the slots of a row that have a target: part B, and all slots of causal rows."""
    mean = (objective.document_min_ratio + objective.document_max_ratio) / 2
    return (
        objective.causal_rate
        + objective.span_rate * _span_share(objective)
        + objective.sentence_rate * objective.sentence_mask_ratio
        + objective.document_rate * mean
    )


def _span_share(objective: ObjectiveConfig) -> float:
    """The fraction b of [MASK] rows: m spans are cut out of n tokens.

    Part B has mask_ratio * n tokens and one more per span; the row has n + 2 m slots, since each
    span adds a mask and a start token. Lengths follow a zero-truncated Poisson distribution.
    """
    rate = objective.mean_span_length
    mean_length = min(rate / -math.expm1(-rate), objective.max_span_length)
    spans = objective.mask_ratio / mean_length
    return (objective.mask_ratio + spans) / (1 + 2 * spans)


def attention_flops_per_token(model: ResolvedModel, length: int, density: float) -> float:
    """12 L N H (T density + P): scores and weighted values, forward and backward."""
    width = model.num_heads * model.head_dim
    return 12 * model.num_layers * width * (length * density + model.prefix_length)


def flops_per_token(config: Config, params: Params, frozen: Params | None = None) -> float:
    """FLOPs of a training step per slot of its batch, padding included.

    Args:
      config: of the run.
      params: as in `parameter_groups`.
      frozen: those that are not trained (`TrainState.frozen`).
    """
    model, length = config.resolved_model, config.data.sequence_length
    attention = attention_flops_per_token(model, length, attention_density(config.cost_objective))
    beside = sum(map(adapter_parameters, to_paths(params).values()))
    unneeded = 2 * matrix_parameters(frozen, model.tied_embeddings) if frozen else 0
    return 6 * (matrix_parameters(params) + beside) - unneeded + attention


def describe_groups(groups: Mapping[str, int], trained: int | None = None) -> str:
    """`6,243,584,000 parameters: embedding 266,338,304, ..`; empty groups are left out.

    Args:
      groups: of `parameter_groups`.
      trained: how many are trained; said where it is not all of them.
    """
    listed = ", ".join(f"{name} {size:,}" for name, size in groups.items() if size)
    total = sum(groups.values())
    some = "" if trained in (None, total) else f"; {trained:,} of them are trained"
    return f"{total:,} parameters: {listed}{some}"
