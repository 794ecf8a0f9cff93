"""`glm_tokenizer.json`: what the other files of a tokenizer do not say.

    {"kind": "chatglm3"}          tokenizer.model is ChatGLM3's, not ChatGLM2's
    {"colliding_ids": true}       [gMASK] of GLM-10B-Chinese has the id of <|endofpiece|>

`save` writes it beside them. Written by hand, it tells the kind of a directory that leaves it open.
"""

import dataclasses
from pathlib import Path

from glm_jax.checks import check_choice
from glm_jax.errors import UserError
from glm_jax.json_files import read_object, shown
from glm_jax.tokenizers.protocol import SETTINGS

# The kinds that `load_tokenizer(.., kind=)` takes.
KINDS = ("chatglm", "chatglm2", "chatglm3", "glm4", "glm4_0414")


@dataclasses.dataclass(frozen=True)
class Settings:
    """The content of the file.

    Attributes:
      kind: one of `KINDS`; None: not said.
      colliding: whether ids collide.
    """

    kind: str | None = None
    colliding: bool = False


def read_settings(directory: Path) -> Settings:
    """The settings in a directory; without the file, those of an empty one.

    Raises:
      UserError: a value that is none of those above.
    """
    file = directory / SETTINGS
    if not file.is_file():
        return Settings()
    values = read_object(file)
    kind, colliding = values.get("kind"), values.get("colliding_ids", False)
    if not isinstance(colliding, bool):
        raise UserError(f"colliding_ids in {file} must be true or false; got {shown(colliding)}")
    if kind is not None:
        check_choice(f"kind in {file}", kind, KINDS)
    return Settings(kind, colliding)
