"""Text to ids and back. Special tokens are read from text only when asked for.

tokenizer = load_tokenizer("bundled")
tokenizer.encode("the [MASK] was")                      ▁the ▁ [ M A S K ] ▁was
tokenizer.encode("the [MASK] was", allow_special=True)  ▁the [MASK] ▁was
"""

import functools
import importlib
import importlib.resources
from collections.abc import Callable
from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.paths import expanded
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.tokenizers.published import PublishedTokenizer, published_files
from glm_jax.tokenizers.sentencepieces import FILE_NAME, SentencePieceTokenizer
from glm_jax.tokenizers.settings import read_settings

# Of vocabularies with a chat format. Imported when a path may hold one: templates and the library
# `tokenizers` take time to load, and nothing else here needs them.
_KINDS = "glm_jax.tokenizers.kinds"


def load_tokenizer(
    path: str | Path = "bundled", kind: str | None = None, colliding_ids: bool = False
) -> Tokenizer:
    """Reads a tokenizer.

    Args:
      path: "bundled" (7168 tokens, English and Chinese); a sentencepiece model file, or a directory
        with a `tokenizer.model`, such as a workdir of `glm_jax.train`; the vocabulary of a ChatGLM
        or GLM-4, or a tokenizer.json, or a directory with one (`glm_jax.tokenizers.kinds` lists
        them); or the vocabulary of a GLM of 2021 (`glm_jax.tokenizers.published`).
      kind: "chatglm", "chatglm2", "chatglm3", "glm4" or "glm4_0414"; None: told from what is there.
      colliding_ids: [gMASK] has the id of <|endofpiece|>, as in GLM-10B-Chinese.

    Raises:
      UserError: nothing there, a damaged file or one of another kind, or a special token missing.
    """
    if kind is not None:
        if colliding_ids:
            raise UserError(f"colliding_ids are those of GLM-10B-Chinese, not of kind={kind!r}")
        if found := _opened("tokenizer_of_kind", expanded(path), kind):
            return found
    if str(path) == "bundled":
        return _bundled()
    path = expanded(path)
    if found := _opened("told_tokenizer", path):
        return found
    if not (path / FILE_NAME).is_file():
        if files := published_files(path):
            colliding = colliding_ids or (path.is_dir() and read_settings(path).colliding)
            return PublishedTokenizer(files, str(path), colliding)
        if found := _opened("fast_tokenizer", path):
            return found
    file = tokenizer_file(path)
    return SentencePieceTokenizer(file.read_bytes(), name=str(file))


def tokenizer_file(path: str | Path = "bundled") -> Path:
    """The sentencepiece model file that `load_tokenizer(path)` reads.

    Raises:
      ValueError: there is none.
    """
    if str(path) == "bundled":
        return Path(str(importlib.resources.files("glm_jax.bundled"))) / "vocabulary.model"
    file = expanded(path)
    if file.is_dir():
        file = file / FILE_NAME
        if not file.is_file():
            raise UserError(f"the directory {str(path)!r} holds no {FILE_NAME}")
    if not file.is_file():
        raise UserError(
            f"no tokenizer at {str(path)!r}; allowed: 'bundled', a sentencepiece model file, or a "
            f"directory with a {FILE_NAME}"
        )
    return file


def _opened(function: str, path: Path, *arguments: str) -> Tokenizer | None:
    """What a function of `kinds` makes of a path."""
    open_: Callable[..., Tokenizer | None] = getattr(importlib.import_module(_KINDS), function)
    return open_(path, *arguments)


@functools.cache
def _bundled() -> SentencePieceTokenizer:
    return SentencePieceTokenizer(tokenizer_file().read_bytes(), name="the bundled vocabulary")
