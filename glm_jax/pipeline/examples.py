"""The examples of a config as a store: found, built if missing, opened and checked.

examples.pretraining_rate=0      STORE/examples.json
above 0                          STORE/examples/examples.json, STORE/pretraining/store.json
"""

import dataclasses
import re
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.examples import ExamplesConfig
from glm_jax.data.examples.building import build_store, described_files, settings, store_key
from glm_jax.data.examples.store import INDEX, ExampleStore
from glm_jax.data.identity import file_differences
from glm_jax.errors import UserError
from glm_jax.fetching import fetched
from glm_jax.files import replaced_directory
from glm_jax.json_files import JsonObject
from glm_jax.paths import cache_directory, expanded
from glm_jax.tokenizers.tokenizer import load_tokenizer

EXAMPLES, PRETRAINING = "examples", "pretraining"


def pretraining(config: Config) -> Config:
    """The config of the texts that are mixed in."""
    texts = dataclasses.replace(
        config.data,
        source=str(config.examples.pretraining_source),
        store=None if config.data.store is None else str(expanded(config.data.store) / PRETRAINING),
    )
    return dataclasses.replace(config, data=texts, examples=ExamplesConfig())


def directory(config: Config) -> Path:
    """Where the store of the examples is, or will be.

    `data.store`, or a directory under the cache that is named after all that decides its content.

    Raises:
      UserError: no files, or no tokenizer.
    """
    if config.data.store is not None:
        given = expanded(config.data.store)
        given = given / EXAMPLES if config.examples.pretraining_rate else given
        return fetched(given, check=_check_copy)
    name = re.sub(r"[^A-Za-z0-9]+", "-", config.data.source).strip("-")[-40:].strip("-")
    return cache_directory() / "stores" / f"{name or 'examples'}-{store_key(config)}"


def opened(config: Config) -> ExampleStore:
    """The store of the examples; a missing one is built first.

    Raises:
      UserError: no files; an object that is not of the format; nothing to learn; or a store that is
        damaged, or was made from other files or with other settings than the config has.
    """
    place = directory(config)
    if not place.exists():
        try:
            build_store(config, place)
        except (UserError, OSError):
            # If there is a store now, it is complete: another process has renamed it into place.
            if not place.exists():
                raise
    store = ExampleStore.open(place)
    _check(config, store, f"the store of examples {str(place)!r}")
    return store


def rebuild(config: Config, place: Path) -> None:
    """Builds the store anew; an existing one is replaced once the new one is complete.

    Raises:
      UserError: as `build_store`, or `place` holds something other than such a store.
    """
    if place.exists() and not _is_store(place):
        raise UserError(f"{str(place)!r} is not a store of examples; remove it by hand")
    with replaced_directory(place, _is_store) as fresh:
        build_store(config, fresh)


def describe(place: Path) -> str:
    """A line on a store: "/path, train 1345 examples 99210 tokens, eval 34 examples ..."."""
    store = ExampleStore.open(place)
    if store.reading is not None:
        store.reading.wait()
        store.check()
    sizes = [
        f"{name} {len(examples)} examples {len(examples.tokens)} tokens"
        for name, examples in sorted(store.splits.items(), reverse=True)
    ]
    return ", ".join([str(place), *sizes])


def _is_store(place: Path) -> bool:
    return (place / INDEX).is_file()


def _check_copy(copy: Path) -> None:
    """Refuses a copy of what is no store, or no whole one."""
    store = ExampleStore.open(copy)
    if store.reading is not None:
        store.reading.wait()
    store.check()


def _check(config: Config, store: ExampleStore, where: str) -> None:
    """Refuses a store that the config contradicts."""
    if store.vocab_size > config.model.vocab_size:
        raise UserError(
            f"model.vocab_size must be at least the tokenizer's {store.vocab_size}; "
            f"got {config.model.vocab_size}"
        )
    made: JsonObject = store.description
    tokenizer = load_tokenizer(config.data.tokenizer)
    for name, value in (
        ("tokenizer_fingerprint", tokenizer.fingerprint),
        ("chat_fingerprint", tokenizer.chat_fingerprint),
    ):
        if made.get(name, value) != value:
            of = "tokenizer" if name == "tokenizer_fingerprint" else "chat format"
            raise UserError(
                f"{where} was made with another {of} than data.tokenizer="
                f"{config.data.tokenizer!r} has"
            )
    wanted = {**settings(config), "data.eval_fraction": config.data.eval_fraction}
    had = {**made.get("settings", {}), "data.eval_fraction": made.get("eval_fraction")}
    what = [
        f"{name}={had.get(name)!r}, not {wanted.get(name)!r}"
        for name in wanted
        if had.get(name) != wanted.get(name)
    ] or _other_files(config, store)
    if what:
        raise UserError(
            f"{where} was made from {'; '.join(what)}; say in the config what it was made from, or "
            "give data.store another directory"
        )


def _other_files(config: Config, store: ExampleStore) -> list[str]:
    """What differs in the files; a host that has a store needs no files."""
    made = store.description
    try:
        now = described_files(config)
    except UserError as error:
        same = made.get("source") == config.data.source
        said = f"data.source={made.get('source')!r}, not {config.data.source!r} ({error})"
        return [] if same else [said]
    return file_differences(made.get("files", []), now)
