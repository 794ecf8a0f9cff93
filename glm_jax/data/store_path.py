"""Where a token store lies: found from the config alone, without building it."""

import glob
import hashlib
import importlib.resources
import json
import os
import re
from pathlib import Path

from glm_jax.config import DataConfig
from glm_jax.errors import UserError
from glm_jax.interop.tokenizers import load_tokenizer

# Part of every store's name; raise it when the same text would give other tokens or other splits.
FORMAT = 1

SUFFIXES = (".txt", ".jsonl")


def source_files(data: DataConfig) -> list[Path]:
    """The files of `data.source`, sorted; those of the package for "bundled".

    Raises:
      ValueError: nothing matches, or a file is neither text nor JSON lines.
    """
    if data.source == "bundled":
        folder = Path(str(importlib.resources.files("glm_jax.bundled")))
        return sorted(folder.glob("corpus.*.xz"))
    pattern = os.path.expanduser(data.source)
    # A file whose own name has brackets in it is meant as it is.
    names = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
    files = sorted(Path(name) for name in names if os.path.isfile(name))
    if not files:
        hint = " (a directory; name its files, for example with /*.txt)"
        raise UserError(
            f"no file matches data.source={data.source!r}{hint if os.path.isdir(pattern) else ''}; "
            "allowed: 'bundled', or a glob of .txt or .jsonl files"
        )
    for file in files:
        if file.suffix not in SUFFIXES:
            raise UserError(
                f"data.source takes files that end in {' or '.join(SUFFIXES)}; got {str(file)!r}"
            )
    return files


def cache_directory() -> Path:
    """`$GLM_JAX_CACHE`, else `$XDG_CACHE_HOME/glm_jax`, else `~/.cache/glm_jax`."""
    own = os.environ.get("GLM_JAX_CACHE")
    if own:
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "glm_jax"


def store_name(data: DataConfig) -> Path:
    """The directory of the token store of this corpus, tokenizer and split.

        data.source="my/*.txt" -> ~/.cache/glm_jax/stores/my-txt-3f2a9c0d51b7e684

    `data.store` is taken as it is, so a host that has a store needs no text. Otherwise the name
    changes with the files (path, size, time of change), the text field, the tokenizer and
    `data.eval_fraction`, and with nothing else.

    Raises:
      ValueError: `data.source` matches nothing, or `data.tokenizer` cannot be read.
    """
    if data.store is not None:
        return Path(data.store).expanduser()
    readable = re.sub(r"[^A-Za-z0-9]+", "-", data.source).strip("-")[-40:].strip("-") or "text"
    return cache_directory() / "stores" / f"{readable}-{store_key(data)}"


def store_key(data: DataConfig) -> str:
    """16 hexadecimal digits that change with all that decides a store's content."""
    parts = {
        "format": FORMAT,
        "files": [_identity(file, data.source) for file in source_files(data)],
        "text_field": data.text_field,
        "tokenizer": load_tokenizer(data.tokenizer).fingerprint,
        "eval_fraction": data.eval_fraction,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _identity(file: Path, source: str) -> list[str | int]:
    if source == "bundled":
        # An installed file's time says nothing, and the file is small.
        return [file.name, hashlib.sha256(file.read_bytes()).hexdigest()]
    status = file.stat()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns]
