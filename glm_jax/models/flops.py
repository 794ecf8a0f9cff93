"""Parameters by group, and the FLOPs of a training step, in closed form.

A multiplication and an addition are two FLOPs. A token's share of a step is

    6 * (parameters of matrices)  +  12 * L * N * H * T * density

forwards 2 per parameter, backwards twice that; attention multiplies queries with keys and weights
with values, 4 * N * H for each key that a query sees, and sees `density * T` of them (as in
arXiv:2204.02311, appendix B, there without the density). The output matrix counts at every place
and a table that is only looked up does not; what is recomputed (`model.remat`) does not count, so
that utilisations compare.
"""

import math
from collections.abc import Mapping
from typing import Any

from glm_jax.config import Config
from glm_jax.config.model import ModelConfig
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.models.params import Params, to_paths

GROUPS = ("embedding", "attention", "mlp", "norms", "output", "other")


def parameter_groups(params: Params) -> dict[str, int]:
    """Parameters by what they do; a tied output matrix is part of the embedding.

        ChatGLM2-6B -> embedding 266 M, attention 1057 M, mlp 4712 M, norms 0.2 M, output 266 M

    Args:
      params: nested dict of arrays or of what has a shape.
    """
    groups = dict.fromkeys(GROUPS, 0)
    for path, leaf in to_paths(params).items():
        groups[_group(path)] += math.prod(leaf.shape)
    return groups


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
    ):
        if part in parts:
            return group
    return "other"


def matrix_parameters(params: Params) -> int:
    """Parameters that every token is multiplied with: all kernels, and the output matrix."""
    leaves = to_paths(params)
    kernels = sum(math.prod(x.shape) for path, x in leaves.items() if path.endswith("/kernel"))
    output = leaves.get("output/table", leaves["embedding/table"])
    return kernels + math.prod(output.shape)


def attention_density(objective: ObjectiveConfig) -> float:
    """Share of the T x T pairs of query and key that are seen, where one text fills the row.

    Causal rows see half. In a GLM row with a share b of its places in part B every query sees part
    A, and those of part B half of part B on average: (1 - b) + b^2 / 2.

        [MASK], 15 %  ->  b = 0.18, density 0.84          causal -> 0.5

    Several documents in a row see less, so this is an upper bound.
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
    """Share of the places of a row that have a target: part B, and everything in causal rows."""
    mean = (objective.document_min_ratio + objective.document_max_ratio) / 2
    return (
        objective.causal_rate
        + objective.span_rate * _span_share(objective)
        + objective.sentence_rate * objective.sentence_mask_ratio
        + objective.document_rate * mean
    )


def _span_share(objective: ObjectiveConfig) -> float:
    """b of [MASK] rows: of n tokens m spans are cut, and mask, start and end tokens come in.

    Part B has mask_ratio * n tokens and one more a span, the row n + 2 m; lengths follow a Poisson
    law without its 0.
    """
    rate = objective.mean_span_length
    mean_length = min(rate / -math.expm1(-rate), objective.max_span_length)
    spans = objective.mask_ratio / mean_length
    return (objective.mask_ratio + spans) / (1 + 2 * spans)


def attention_flops_per_token(model: ModelConfig, length: int, density: float) -> float:
    """12 * L * N * H * T * density: scores and weighted values, forwards and backwards."""
    model = model.resolved()
    width = model.num_heads * (model.head_dim or 0)
    return 12 * model.num_layers * width * length * density


def flops_per_token(config: Config, params: Params) -> float:
    """FLOPs of a training step over its places.

    Args:
      config: of the run.
      params: as in `parameter_groups`.
    """
    density = attention_density(config.objective)
    attention = attention_flops_per_token(config.model, config.data.sequence_length, density)
    return 6 * matrix_parameters(params) + attention


def describe_groups(groups: Mapping[str, Any]) -> str:
    """`6,243,584,000 parameters: embedding 266,338,304, ..`, empty groups left out."""
    listed = ", ".join(f"{name} {size:,}" for name, size in groups.items() if size)
    return f"{sum(groups.values()):,} parameters: {listed}"
