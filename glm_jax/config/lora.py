"""The section `lora` of a config: low-rank adapters beside the matrices of a frozen model."""

import dataclasses
import math
import re

from glm_jax.checks import check_types, finite_number, whole_number
from glm_jax.errors import UserError

_LARGEST_RANK = 2**16


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """LoRA (arXiv:2106.09685): of a matrix W, W + scale a b is used, and only a and b are trained.

    The defaults beside `rank` are those published for ChatGLM3 and GLM-4, whose rank is 8.

    Attributes:
      rank: r, columns of a and rows of b; 0: no adapters. Above 0 they alone are trained, and what
        `train.trainable` names. They and their moments are float32 whatever model.param_dtype is.
      alpha: scale is alpha / r.
      dropout: on what a is multiplied with, in training.
      targets: which matrices of the layers have one: names, or regular expressions that must match
        whole names, separated by commas; "all" is every one. The names are attention/query,
        attention/key, attention/value, attention/out, mlp/up, mlp/down and, of models with a gated
        MLP, mlp/gate.
      rank_stabilized: scale is alpha / sqrt(r) (rsLoRA, arXiv:2312.03732).
    """

    rank: int = 0
    alpha: float = 32.0
    dropout: float = 0.1
    targets: str = "attention/query, attention/key, attention/value"
    rank_stabilized: bool = False

    def __post_init__(self):
        check_types(self, "lora")
        whole_number("lora.rank", self.rank, least=0, most=_LARGEST_RANK)
        finite_number("lora.alpha", self.alpha, above=0)
        finite_number("lora.dropout", self.dropout, least=0, below=1)
        for pattern in self.patterns:
            try:
                re.compile(pattern)
            except re.error as error:
                raise UserError(
                    f"lora.targets must be names or regular expressions; got {pattern!r} ({error})"
                ) from error
        if not self.patterns:
            raise UserError('lora.targets must name matrices of the layers, or be "all"')

    @property
    def patterns(self) -> tuple[str, ...]:
        """The parts of `targets`; "all" matches everything."""
        parts = tuple(part.strip() for part in self.targets.split(",") if part.strip())
        return (".*",) if parts == ("all",) else parts

    @property
    def scale(self) -> float:
        """The factor of a b."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)
