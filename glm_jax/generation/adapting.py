"""Adapters of a model: beside one base, folded in, written alone; a value head left out."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from glm_jax.adapters.factors import factors_of, folded, has_factors
from glm_jax.adapters.fingerprint import fingerprint
from glm_jax.adapters.prefix import with_plain_prefix
from glm_jax.config.model import ResolvedModel
from glm_jax.errors import UserError, did_you_mean
from glm_jax.interop.low_rank import save_low_rank
from glm_jax.interop.origin import Origin
from glm_jax.interop.prefixes import save_prefix
from glm_jax.models.trees import Params, to_paths
from glm_jax.models.value_head import NAME as VALUE_HEAD
from glm_jax.sharding.mesh import is_first, on_host
from glm_jax.tokenizers.protocol import Tokenizer

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel

# The name of each adapter, and None for the base -> config and parameters with it.
Family = Mapping[str | None, tuple[ResolvedModel, Params]]


class Adapting:
    """The methods of `LanguageModel` that concern its adapters and its value head."""

    config: ResolvedModel
    params: Params
    tokenizer: Tokenizer | None
    _origin: Origin
    _family: Family

    @property
    def adapters(self) -> tuple[str, ...]:
        """The names of the adapters that `load(path, adapter={name: DIR})` was given; or ()."""
        return tuple(name for name in self._family if name is not None)

    def with_adapter(self, name: str | None) -> "LanguageModel":
        """The model with one of its adapters, instead of any other; all share the base's arrays.

            lm = glm_jax.load("chatglm3-6b", adapter={"law": "runs/law", "verse": "runs/verse"})
            poet = lm.with_adapter("verse")

        Keep what it returns: each object prepares its own decoding once.

        Args:
          name: of `adapters`; None: the base alone.

        Raises:
          UserError: there is no such adapter.
        """
        if name not in self._family:
            known = ", ".join(map(repr, self.adapters))
            raise UserError(
                f"this model has no adapter {name!r}{did_you_mean(str(name), self.adapters)}; "
                + (f"there are {known}" if known else "load(path, adapter={name: DIR}) gives some")
            )
        model = self._with(*self._family[name])
        model._family = self._family
        return model

    def merged(self, dequantize: bool = False) -> "LanguageModel":
        """The same model with its LoRA folded into plain matrices; its other arrays are shared.

        Sums are taken in float32 and rounded once, to the dtype of the base.

        Args:
          dequantize: make quantised matrices plain, all of them, of `config.param_dtype`.

        Raises:
          UserError: there is no LoRA, or only a prefix, or matrices are quantised.
        """
        if not has_factors(self.params):
            prefix = (
                f"; its prefix (model.prefix_length={self.config.prefix_length}) is no change of "
                "its matrices, and save writes it with the model"
            )
            raise UserError(
                f"this model has no LoRA to be merged{prefix if self.config.prefix_length else ''}"
            )
        return self._with(self.config, folded(self.params, self.config.param_dtype, dequantize))

    def without_value_head(self) -> "LanguageModel":
        """The same model without its value head, as published formats have it; arrays are shared.

        What PPO trained writes as before; rewards and values are gone.

        Raises:
          UserError: there is none.
        """
        if not self.config.value_head:
            raise UserError("the model has no value head (model.value_head), so none to leave out")
        params = {name: leaf for name, leaf in self.params.items() if name != VALUE_HEAD}
        return self._with(dataclasses.replace(self.config, value_head=False), params)

    def _with(self, config: ResolvedModel, params: Params) -> "LanguageModel":
        made = type(cast("LanguageModel", self))
        return made(config, params, self.tokenizer, self._origin)

    def _save_adapter(self, path: Path, format: str, names: str) -> None:
        """Writes the LoRA or the prefix alone; of several processes all must call this."""
        if format == "peft" and (factors := factors_of(self.params)):
            base = fingerprint(self.params)
            if is_first():
                save_low_rank(path, self.config, factors, self._origin, names, base)
            return
        if format == "peft" and not self.config.prefix_length:
            raise UserError("format='peft' writes a LoRA or a prefix alone; this model has neither")
        if names != "as_loaded":
            raise UserError(
                f"names={names!r} is for a model or its LoRA; a prefix has the names of its format"
            )
        params = self.params
        if format == "peft":
            params = with_plain_prefix(self.config, params)[1]
        prefix = to_paths({"prefix": params.get("prefix", {})})
        # Of several processes each may hold a part; the first one writes.
        leaves = {name: on_host(leaf) for name, leaf in prefix.items()}
        if is_first():
            save_prefix(path, format, self.config, leaves, self._origin)
