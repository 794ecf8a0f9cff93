"""The model over which a run trains a part of the parameters, as its checkpoints record it.

    WORKDIR/checkpoints/400/_CHECKPOINT_METADATA      "base": {"name": "chatglm3-6b",
                                                               "path": "/models/chatglm3-6b",
                                                               "fingerprint": {..}}

Such a checkpoint holds the trained part alone. What is frozen is read again from where it lies, and
must have the fingerprint that it had.
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from glm_jax.adapters.fingerprint import Fingerprint, agree, common, fingerprint, shortened
from glm_jax.errors import UserError
from glm_jax.models.trees import Params
from glm_jax.paths import checkpoint
from glm_jax.remote import is_remote


@dataclasses.dataclass(frozen=True)
class Base:
    """What is known of a base.

    Attributes:
      name: as `train.init_from` says.
      path: the same as an absolute path, or "bundled".
      fingerprint: of what is frozen.
    """

    name: str
    path: str
    fingerprint: Fingerprint

    @classmethod
    def of(cls, name: str, frozen: Params) -> "Base":
        """The base that `train.init_from` names, of which `frozen` is not trained."""
        path = checkpoint(name)
        absolute = name if name == "bundled" or is_remote(path) else os.path.abspath(path)
        return cls(name, absolute, fingerprint(frozen))

    @classmethod
    def recorded(cls, values: Mapping[str, object]) -> "Base":
        """From what `dataclasses.asdict` gave."""
        return cls(**values)  # type: ignore[arg-type]

    def where(self) -> Path:
        """Its directory.

        Raises:
          UserError: it is neither where it was nor under its name.
        """
        for path in (checkpoint(self.path), checkpoint(self.name)):
            if path.exists():
                return path
        raise UserError(
            f"the model that was tuned is no longer in {self.path!r}; load it from where it is, "
            "with adapter=WORKDIR"
        )

    def check(self, params: Params, where: object) -> None:
        """Refuses parameters that are not those of this base.

        Args:
          params: of a model, of which only what the run froze is compared.
          where: the model's name, for the error.

        Raises:
          UserError: with both fingerprints.
        """
        found = common(fingerprint(params), self.fingerprint)
        if agree(self.fingerprint, found):
            return
        differing = [
            path
            for path in self.fingerprint
            if path not in found or not agree({"": self.fingerprint[path]}, {"": found[path]})
        ]
        raise UserError(
            f"the adapter was trained over {self.name!r}, with the fingerprint "
            f"{shortened(self.fingerprint)}; {str(where)!r} is another model, with the "
            f"fingerprint {shortened(found)} (the first that differs: {differing[0]})"
        )
