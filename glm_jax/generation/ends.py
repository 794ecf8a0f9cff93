"""The end-of-text ids of a model, from the files of its checkpoint."""

from glm_jax.interop.origin import Origin
from glm_jax.special_tokens import SpecialTokens


def eos_ids_of(origin: Origin, special: SpecialTokens | None) -> list[int] | None:
    """The ids that end a text, or None if no file of the checkpoint says so.

    They are those of generation_config.json, else of config.json, else the tokenizer's.
    """
    found = origin.eos_ids
    if found is None and special is not None:
        found = [special.eos]
    return found
