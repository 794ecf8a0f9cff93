"""The special ids of a model, from the files of its checkpoint."""

from collections.abc import Iterable

from glm_jax.generation.options import Marks
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


def chat_ends_of(origin: Origin, ends: Iterable[int]) -> list[int]:
    """The ids that end an answer in a chat: the tokenizer's, and those that end a text.

    Both: ChatGLM3's files name </s> alone, where its answers end with <|user|> and <|observation|>
    too; those of a tuned model may name one that its tokenizer does not.
    """
    return sorted({*ends, *(origin.eos_ids or ())})


def marks_of(origin: Origin, special: SpecialTokens | None) -> Marks | None:
    """The ids around a blank, of the tokenizer or else of config.json; None: neither says them."""
    if special is not None:
        return Marks(special.masks, special.start, special.gmask)
    if origin.blanks is None:
        return None
    masks, start = origin.blanks
    return Marks(masks, start, masks[-1])


def span_ends_of(origin: Origin, special: SpecialTokens | None) -> list[int] | None:
    """The ids that end a span, from where `marks_of` takes its ids; None: nothing says them."""
    if special is not None:
        return [special.end, special.eos]
    return None if origin.blanks is None else origin.eos_ids
