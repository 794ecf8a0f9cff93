"""Adapters as they lie in a directory of any kind: told apart, and read."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from glm_jax.adapters.factors import Factors
from glm_jax.checkpoints.base import Base
from glm_jax.checkpoints.finding import on_this_machine
from glm_jax.config import Config
from glm_jax.config.model import ModelConfig
from glm_jax.interop.lora_config import holds_lora
from glm_jax.interop.low_rank import read_low_rank
from glm_jax.interop.origin import Origin
from glm_jax.interop.prefixes import read_prefix_directory
from glm_jax.interop.recorded_base import read_base
from glm_jax.paths import expanded


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter: a LoRA or a prefix that was read, or a run that will be.

    Attributes:
      config: of the model with it.
      factors: of a LoRA, by the path of their matrix; else empty.
      prefix: path -> float32 array of a prefix; else empty.
      base: that it was trained over, where its directory says so.
      run: the config of a run, which holds its trained part alone.
    """

    config: ModelConfig
    factors: Mapping[str, Factors] = dataclasses.field(default_factory=dict)
    prefix: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    base: Base | None = None
    run: Config | None = None

    @property
    def is_lora(self) -> bool:
        """Whether it stands beside matrices, into which it can be folded."""
        return bool(self.factors) or (self.run is not None and self.run.lora.rank > 0)

    def __str__(self) -> str:
        if self.run is not None:
            kind = f"LoRA, rank {self.run.lora.rank}" if self.is_lora else "the trained part"
            return f"{kind}, of a run of glm_jax"
        if self.prefix:
            return f"a prefix of {self.config.prefix_length}"
        ranks = sorted({part.rank for part in self.factors.values()})
        return f"LoRA of {len(self.factors)} matrices, rank {', '.join(map(str, ranks))}"


def read_adapter(path: str | Path, config: ModelConfig, origin: Origin) -> Adapter:
    """Reads the directory of an adapter: of PEFT, or of ChatGLM's P-Tuning.

    Args:
      path: of the directory.
      config, origin: of the model that it is for.

    Raises:
      UserError: as `read_low_rank` and `read_prefix_directory`.
    """
    home = on_this_machine(expanded(path), None)
    if holds_lora(home):
        recorded = read_base(home)
        base = Base(recorded.name, "", recorded.fingerprint) if recorded else None
        return Adapter(config, factors=read_low_rank(home, config, origin), base=base)
    found = read_prefix_directory(home, config, origin)
    return Adapter(found.config, prefix=found.leaves)
