"""The directory of a token store, determined from the config alone without building it."""

import glob
import hashlib
import importlib.resources
import json
import os
import re
from pathlib import Path

from glm_jax.config.data import DataConfig
from glm_jax.data.file_hashes import file_hashes
from glm_jax.data.store import FORMAT, INDEX, TokenStore
from glm_jax.errors import UserError
from glm_jax.fetching import fetched
from glm_jax.paths import cache_directory, expanded
from glm_jax.tokenizers.tokenizer import load_tokenizer

# Prefixes of sources that are not files and that only `glm_jax.tasks` can read.
SCHEMES = ("tfds:", "task:")

_KINDS = {
    "text": re.compile(r".*\.(txt|xz)"),
    "json": re.compile(r".*\.jsonl"),
    "tfrecord": re.compile(r".*\.tfrecords?(-\d+-of-\d+)?"),
}
# Sources in the package: English, Chinese, or both.
BUNDLED = {
    "bundled": "corpus.*.xz",
    "bundled:en": "corpus.en.xz",
    "bundled:zh": "corpus.zh.xz",
}
_ALLOWED = ".txt, .jsonl or .tfrecord"


def is_scheme(source: str) -> bool:
    """Whether a source is a dataset or a task, not files."""
    return source.startswith(SCHEMES)


def file_kind(path: Path) -> str:
    """How a file is read: "text", "json", "tfrecord" ("a.tfrecord-00000-of-00010"), else ""."""
    return next((kind for kind, form in _KINDS.items() if form.fullmatch(path.name)), "")


def source_files(data: DataConfig) -> list[Path]:
    """The files of `data.source`, sorted: for `BUNDLED` files of the package, for a dataset none.

    Raises:
      ValueError: nothing matches, or a file is neither text nor JSON lines nor TFRecord.
    """
    if is_scheme(data.source):
        return []
    if data.source in BUNDLED:
        folder = Path(str(importlib.resources.files("glm_jax.bundled")))
        return sorted(folder.glob(BUNDLED[data.source]))
    pattern = os.path.expanduser(data.source)
    # An existing file is taken literally, even if its name looks like a glob.
    names = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
    files = sorted(Path(name) for name in names if os.path.isfile(name))
    if not files:
        hint = " (a directory; name its files, for example with /*.txt)"
        raise UserError(
            f"no file matches data.source={data.source!r}{hint if os.path.isdir(pattern) else ''}; "
            f"allowed: {', '.join(map(repr, BUNDLED))}, a glob of {_ALLOWED} files, "
            "'tfds:NAME:VERSION' or 'task:NAME'"
        )
    for file in files:
        if not file_kind(file) or file.suffix == ".xz":
            raise UserError(f"data.source takes files that end in {_ALLOWED}; got {str(file)!r}")
    return files


def store_name(data: DataConfig) -> Path:
    """The directory of the token store of this corpus, tokenizer and split.

        data.source="my/*.txt" -> ~/.cache/glm_jax/stores/my-txt-3f2a9c0d51b7e684

    If `data.store` is given, it is used as it is, so a host that has the store needs no text. One
    in a bucket is copied to this machine first, once, and checked (`glm_jax.fetching`).
    Otherwise the name depends only on the content and kinds of the files, the text field, the
    tokenizer and `data.eval_fraction`. For a dataset or a task it depends on the name and location,
    not the content: if that changes, build the store anew (`glm_jax.cache --force`).

    Raises:
      ValueError: `data.source` matches nothing, `data.tokenizer` cannot be read, or there is no
        whole store in the bucket.
    """
    if data.store is not None:
        return fetched(expanded(data.store), check=_check_copy)
    readable = re.sub(r"[^A-Za-z0-9]+", "-", data.source).strip("-")[-40:].strip("-") or "text"
    return cache_directory() / "stores" / f"{readable}-{store_key(data)}"


def _check_copy(copy: Path) -> None:
    """Refuses a copy of what is no store, or no whole one; waits until all of it is read."""
    found = sorted(
        index.parent for pattern in (INDEX, f"*/{INDEX}") for index in copy.glob(pattern)
    )
    for directory in found or [copy]:
        try:
            store = TokenStore.open(directory)
            if store.reading is not None:
                store.reading.wait()
            store.check()
        except UserError as error:
            what = str(error).partition("; remove it")[0]
            raise UserError(f"{what}; copy a whole one there") from error


def store_key(data: DataConfig) -> str:
    """16 hexadecimal digits that change with everything that decides a store's content."""
    parts = {
        "format": FORMAT,
        "files": [
            [file_kind(Path(str(one["name"]))), one["sha256"]] for one in described_files(data)
        ],
        "text_field": data.text_field,
        "tokenizer": load_tokenizer(data.tokenizer).fingerprint,
        "eval_fraction": data.eval_fraction,
    }
    if is_scheme(data.source):
        parts["source"] = [data.source, data.tfds_data_dir, data.task_module, data.seqio_cache_dir]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def described_files(data: DataConfig) -> list[dict[str, str | int]]:
    """Name, size and SHA-256 of each of `source_files`; see `glm_jax.data.file_hashes`.

    Raises:
      UserError: as `source_files`, or a file cannot be read.
    """
    files = source_files(data)
    hashes = file_hashes(files, cache_directory() / "hashes")
    return [
        {"name": str(file), "bytes": file.stat().st_size, "sha256": digest}
        for file, digest in zip(files, hashes, strict=True)
    ]
