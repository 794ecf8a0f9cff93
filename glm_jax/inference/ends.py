"""Ids that end a text or a span: a model's own, and those that a user gives."""

from collections.abc import Sequence

from glm_jax.errors import UserError
from glm_jax.interop.checkpoint import Origin
from glm_jax.special_tokens import SpecialTokens


def eos_ids_of(origin: Origin, special: SpecialTokens | None) -> list[int] | None:
    """What ends a text of a model; None: nothing says so.

    Its generation_config.json comes first, then its config.json, then its tokenizer.
    """
    found = origin.eos_ids
    if found is None and special is not None:
        found = [special.eos]
    return found


def check_ids(name: str, ids: Sequence[int], vocab_size: int) -> None:
    """Refuses ids that no model of this vocabulary can say, before anything is computed.

    Args:
      name: of the argument.
      ids: given by the user or by the checkpoint.
      vocab_size: V.

    Raises:
      UserError: names the first of them.
    """
    odd = [id_ for id_ in ids if not 0 <= id_ < vocab_size]
    if odd:
        raise UserError(
            f"{name} holds {odd[0]}, outside the vocabulary of {vocab_size}; give {name}= with ids "
            f"of 0..{vocab_size - 1}"
        )
