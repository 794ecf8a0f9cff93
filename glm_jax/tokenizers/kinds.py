"""Which tokenizer with a chat format lies at a path.

    ice_text.model                                          "chatglm"
    tokenizer.model, lines of base64                        "glm4"; "glm4_0414" beside its model
    tokenizer.model, sentencepiece, and beside it           "chatglm3"
        a chat template or published code with
        <|assistant|> in it, or a name with "chatglm3"
    the same, and other code, or a name with "chatglm2"     "chatglm2"
    tokenizer.json                                          by its tokens and the model beside it
    glm_tokenizer.json beside one of these                  as it says

Published code (tokenization_chatglm.py) is looked at as text, and not run.
"""

from pathlib import Path

from glm_jax.checks import check_choice
from glm_jax.errors import UserError
from glm_jax.json_files import read_object
from glm_jax.tokenizers.chat_tokenizer import ChatTokenizer
from glm_jax.tokenizers.chatglm2 import ChatGLM2Tokenizer, ChatGLM3Tokenizer
from glm_jax.tokenizers.chatglm_6b import ChatGLM6BTokenizer
from glm_jax.tokenizers.files import CONFIG, FAST, ICE_TEXT, MODEL, TEMPLATE, TokenizerFiles
from glm_jax.tokenizers.glm4 import GLM4Tokenizer, is_ranks
from glm_jax.tokenizers.hugging_face import HuggingFaceTokenizer
from glm_jax.tokenizers.sentencepieces import has_control_symbols
from glm_jax.tokenizers.settings import KINDS, read_settings

_GLM4 = ("glm4", "glm4_0414")
_NAMES = {"chatglm2": "chatglm2", "codegeex2": "chatglm2", "chatglm3": "chatglm3"}
_CODE = "tokenization_chatglm.py"
# Bytes of a file in which something is looked for.
_MOST = 10 * 2**20


def tokenizer_of_kind(path: Path, kind: str) -> ChatTokenizer:
    """The tokenizer of a kind at a path, a file or a directory.

    Raises:
      UserError: an unknown kind, no such file, or one of another kind.
    """
    check_choice("kind", kind, KINDS)
    names = {"chatglm": (ICE_TEXT,), "glm4": (MODEL, FAST), "glm4_0414": (MODEL, FAST)}
    files = [path / name for name in names.get(kind, (MODEL,))] if path.is_dir() else [path]
    file = next((one for one in files if one.is_file()), None)
    if file is None:
        raise UserError(
            f"no tokenizer of the kind {kind!r} at {str(path)!r}: there is no "
            f"{' and no '.join(one.name for one in files)}"
        )
    if kind not in _GLM4:
        return _of_pieces(file, kind)
    if is_ranks(_head(file)):
        return GLM4Tokenizer(TokenizerFiles.of(file, MODEL), kind)
    if not _is_json(file) and files[-1].is_file():
        file = files[-1]
    if not _is_json(file):
        raise UserError(
            f"{file} is not of the kind {kind!r}: it holds neither ranks in base64 nor JSON"
        )
    return HuggingFaceTokenizer(TokenizerFiles.of(file, FAST), kind)


def told_tokenizer(path: Path) -> ChatTokenizer | None:
    """The tokenizer at a path that tells its kind itself; None where none does.

    Raises:
      UserError: it is damaged.
    """
    directory = path if path.is_dir() else path.parent
    if (kind := read_settings(directory).kind) is not None:
        return tokenizer_of_kind(path, kind)
    files = [path / ICE_TEXT, path / MODEL, path / FAST] if path.is_dir() else [path]
    for file in files:
        if file.is_file() and (found := _told(file)):
            return found
    return None


def fast_tokenizer(path: Path) -> ChatTokenizer | None:
    """That of a tokenizer.json with whatever tokens; None where there is no such file."""
    file = path / FAST if path.is_dir() else path
    if not file.is_file() or (file.name != FAST and not _is_json(file)):
        return None
    return HuggingFaceTokenizer(TokenizerFiles.of(file, FAST))


def _told(file: Path) -> ChatTokenizer | None:
    if _is_json(file):
        # A vocabulary of GLM 2021 may lie beside a tokenizer.json without GLM-4's tokens.
        with file.open("rb") as stream:
            content = stream.read()
        if b"<|assistant|>" not in content or b"[gMASK]" not in content:
            return None
        return fast_tokenizer(file)
    if is_ranks(_head(file)):
        files = TokenizerFiles.of(file, MODEL)
        is_0414 = files.model_config.get("model_type") == "glm4"
        return GLM4Tokenizer(files, "glm4_0414" if is_0414 else "glm4")
    if file.name == ICE_TEXT:
        return _of_pieces(file, "chatglm")
    kind = None if has_control_symbols(file.read_bytes()) else _kind_beside(file.parent)
    return None if kind is None else _of_pieces(file, kind)


def _of_pieces(file: Path, kind: str) -> ChatTokenizer:
    if kind == "chatglm":
        return ChatGLM6BTokenizer(TokenizerFiles.of(file, ICE_TEXT))
    made = ChatGLM2Tokenizer if kind == "chatglm2" else ChatGLM3Tokenizer
    return made(TokenizerFiles.of(file, MODEL))


def _kind_beside(directory: Path) -> str | None:
    """ "chatglm2" or "chatglm3", by what lies beside a tokenizer.model; None: nothing tells."""
    code = _text(directory / _CODE)
    texts = [_text(directory / CONFIG), _text(directory / TEMPLATE)]
    # Other models have the role too.
    if "<|assistant|>" in code or any("[gMASK]" in t and "<|assistant|>" in t for t in texts):
        return "chatglm3"
    if code:
        return "chatglm2"
    names = [*_nearest_names(directory.absolute()), *_nearest_names(directory.resolve())]
    for file in (directory / CONFIG, directory / "config.json"):
        values = read_object(file) if file.is_file() else {}
        names += [str(values.get(key)).lower() for key in ("_name_or_path", "name_or_path")]
    found = (kind for name in names for text, kind in _NAMES.items() if text in name)
    return next(found, None)


def _nearest_names(directory: Path) -> list[str]:
    """Of a directory and those it lies in: models--THUDM--chatglm3-6b/snapshots/COMMIT."""
    return [part.lower() for part in directory.parts[-3:][::-1]]


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(1000)


def _is_json(file: Path) -> bool:
    return _head(file).lstrip().startswith(b"{")


def _text(file: Path) -> str:
    if not file.is_file():
        return ""
    with file.open("rb") as stream:
        return stream.read(_MOST).decode("utf-8", errors="replace")
