"""The corpus of a config as token stores: found, built if missing, opened and checked.

This is the only module that imports SeqIO's sources (`tasks/`), and it does so only if the store of
a dataset or a task is missing. All other training works without TensorFlow.
"""

import sys
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.data import DataConfig
from glm_jax.data import store as stores
from glm_jax.data.identity import disagreement
from glm_jax.data.mixture_store import INDEX, Part, built, sources
from glm_jax.data.store import TokenStore
from glm_jax.data.store_path import is_scheme
from glm_jax.errors import UserError
from glm_jax.files import replaced_directory
from glm_jax.tokenizers.tokenizer import load_tokenizer


class Corpus:
    """The token stores of `config.data`.

        Corpus(config).stores()   -> {"wiki": (0.7, TokenStore), "books": (0.3, TokenStore)}

    Attributes:
      sources: the store of each source of the config, whether built already or not.
    """

    def __init__(self, config: Config):
        """Determines the directories of the stores; builds nothing.

        Raises:
          UserError: a source matches nothing.
        """
        self._config = config
        self.sources = sources(config.data)

    def stores(self) -> dict[str, tuple[float, TokenStore]]:
        """Opens all stores; builds missing ones first.

        Returns:
          Rate and store of each source by its name; {"": (1.0, store)} for a single source.

        Raises:
          UserError: a corpus is empty; the packages needed to build a store are not installed; a
            store is damaged, has ids of another tokenizer, or was made from another source or with
            other settings than the config has.
        """
        for part in self.sources:
            if not part.directory.exists():
                _build_missing(part)
        return {part.name: (part.rate, self._open(part)) for part in built(self.sources)}

    def _open(self, part: Part) -> TokenStore:
        store = TokenStore.open(part.directory)
        if store.vocab_size > self._config.model.vocab_size:
            raise UserError(
                f"model.vocab_size must be at least the tokenizer's {store.vocab_size}; "
                f"got {self._config.model.vocab_size}"
            )
        tokenizer = load_tokenizer(self._config.data.tokenizer)
        where = f"the token store {str(part.directory)!r}"
        if store.description.get("tokenizer_fingerprint", tokenizer.fingerprint) != (
            tokenizer.fingerprint
        ):
            raise UserError(
                f"{where} was made with another tokenizer ({store.description.get('tokenizer')!r}) "
                f"than data.tokenizer={self._config.data.tokenizer!r}"
            )
        if (store.vocab_size, store.special) != (tokenizer.vocab_size, tokenizer.special):
            raise UserError(
                f"{where} has other special ids, or another number of ids, than "
                f"data.tokenizer={self._config.data.tokenizer!r}"
            )
        if what := disagreement(store, part.data):
            raise UserError(
                f"{where} was made from {what}; say in the config what it was made from, or give "
                "data.store another directory"
            )
        _say_default_source(store, part)
        return store


def _say_default_source(store: TokenStore, part: Part) -> None:
    source = store.description.get("source", part.data.source)
    if source != part.data.source == DataConfig().source:
        print(
            f"the token store {str(part.directory)!r} was made from data.source={source!r}; "
            f"data.source={part.data.source!r} is ignored",
            file=sys.stderr,
        )


def _build_missing(part: Part) -> None:
    """Builds a store, unless another process has built it since it was found missing."""
    try:
        build_store(part.data, part.directory)
    except (UserError, OSError):
        # If there is a store now, it is complete: another process has renamed it into place.
        if not part.directory.exists():
            raise


def rebuild(data: DataConfig, directory: Path) -> None:
    """Builds the store of a source anew; an existing one is replaced once the new one is complete.

    Raises:
      UserError: as `Corpus.stores`, or `directory` holds something other than a store.
    """
    if directory.exists() and not _is_store(directory):
        raise UserError(f"{str(directory)!r} is not a token store; remove it by hand")
    with replaced_directory(directory, _is_store) as fresh:
        build_store(data, fresh)


def build_store(data: DataConfig, directory: Path) -> None:
    """Builds the store of one source: a dataset or task with SeqIO, files without it.

    Raises:
      UserError: see `Corpus.stores`.
    """
    if is_scheme(data.source):
        from glm_jax.tasks.store import build_store as build
    else:
        from glm_jax.data.building import build_store as build
    build(data, directory)


def _is_store(directory: Path) -> bool:
    return any((directory / name).is_file() for name in (stores.INDEX, INDEX))
