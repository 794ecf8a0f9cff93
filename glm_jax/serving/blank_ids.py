"""The ids of blanks and answers of a served model, and how they are spelled."""

from collections.abc import Sequence

from glm_jax.errors import UserError
from glm_jax.generation.ends import marks_of, span_ends_of
from glm_jax.generation.options import Marks
from glm_jax.serving.served import Served
from glm_jax.tokenizers.protocol import Tokenizer


def special_ids(served: Served) -> tuple[Marks, list[int]]:
    """The ids around a blank, and those that end an answer.

    Raises:
      UserError: the model fills no blanks, or nothing says which ids they are.
    """
    model = served.model
    if not model.config.fills_blanks:
        raise UserError(
            f"the model {served.name!r} continues texts and fills no blanks; /v1/completions is "
            "what it has"
        )
    marks, ends = marks_of(model._origin, model.special), span_ends_of(model._origin, model.special)
    if marks is None or ends is None:
        raise UserError(f"the model {served.name!r} has no tokenizer that knows blanks")
    return marks, ends


def tokenizer_of(served: Served) -> Tokenizer:
    """The model's tokenizer; UserError if it has none."""
    if served.model.tokenizer is None:
        raise UserError("the checkpoint holds no tokenizer; text needs one")
    return served.model.tokenizer


def spelled(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ids inside a text: the space before a word is kept."""
    return tokenizer.decode([tokenizer.special.mask, *ids], skip_special=True)
