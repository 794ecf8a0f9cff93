"""Ids that end a text of a model, by the files it came with."""

from glm_jax.interop.origin import Origin
from glm_jax.special_tokens import SpecialTokens


def eos_ids_of(origin: Origin, special: SpecialTokens | None) -> list[int] | None:
    """What ends a text of a model; None: nothing says so.

    Its generation_config.json comes first, then its config.json, then its tokenizer.
    """
    found = origin.eos_ids
    if found is None and special is not None:
        found = [special.eos]
    return found
