"""From a config to Batches: finds or builds the token stores and opens the row stream on them.

The only module above the floors that reaches up to `tasks/`, and only where the store of a dataset
or a task is missing, so that all other training needs no TensorFlow.
"""

import sys
from pathlib import Path

from glm_jax.config import Config, DataConfig
from glm_jax.data.documents import SPLITS
from glm_jax.data.identity import disagreement
from glm_jax.data.mixing import source_seed
from glm_jax.data.mixture_store import Part, built, sources
from glm_jax.data.published import PublishedRowBuilder
from glm_jax.data.rows import Builder, RowBuilder
from glm_jax.data.sequence import Mixture
from glm_jax.data.store import TokenStore
from glm_jax.data.store_path import is_scheme
from glm_jax.data.stream import RowStream
from glm_jax.errors import UserError
from glm_jax.tokenizers.tokenizer import load_tokenizer


def open_stores(config: Config) -> dict[str, tuple[float, TokenStore]]:
    """Opens the token stores of `config.data`, building those first that are missing.

    Returns:
      Rate and store of each source by its name; of one source alone {"": (1.0, store)}.

    Raises:
      ValueError: a corpus is missing or empty, a store must be built and the packages that build it
        are not installed, a store is damaged, its ids are not those of the config's tokenizer, or
        it was made from something else than what the config says.
    """
    parts = sources(config.data)
    for part in parts:
        if not part.directory.exists():
            _build_missing(part)
    return {part.name: (part.rate, _open(config, part)) for part in built(parts)}


def _build_missing(part: Part) -> None:
    """Builds a store, unless another process has built it since it was found missing."""
    try:
        build_store(part.data, part.directory)
    except (UserError, OSError):
        # A store comes to its place whole.
        if not part.directory.exists():
            raise


def build_store(data: DataConfig, directory: Path) -> None:
    """Builds the store of one source, a dataset or a task by SeqIO, files without it.

    Raises:
      ValueError: see `open_stores`.
    """
    if is_scheme(data.source):
        from glm_jax.tasks.store import build_store as build
    else:
        from glm_jax.data.building import build_store as build
    build(data, directory)


def _open(config: Config, part: Part) -> TokenStore:
    store = TokenStore.open(part.directory)
    if store.vocab_size > config.model.vocab_size:
        raise UserError(
            f"model.vocab_size must be at least the tokenizer's {store.vocab_size}; "
            f"got {config.model.vocab_size}"
        )
    tokenizer = load_tokenizer(config.data.tokenizer)
    where = f"the token store {str(part.directory)!r}"
    if store.description.get("tokenizer_fingerprint", tokenizer.fingerprint) != (
        tokenizer.fingerprint
    ):
        raise UserError(
            f"{where} was made with another tokenizer ({store.description.get('tokenizer')!r}) "
            f"than data.tokenizer={config.data.tokenizer!r}"
        )
    if (store.vocab_size, store.special) != (tokenizer.vocab_size, tokenizer.special):
        raise UserError(
            f"{where} has other special ids, or another number of ids, than "
            f"data.tokenizer={config.data.tokenizer!r}"
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
            f"data.source={part.data.source!r} is not looked at",
            file=sys.stderr,
        )


def rows(config: Config, split: str = "train") -> Builder | Mixture:
    """What builds the rows of a split: of the one source, or of the mixture.

    Raises:
      ValueError: an unknown split, or as `open_stores`.
    """
    if split not in SPLITS:
        raise UserError(f"split must be one of {list(SPLITS)}; got {split!r}")
    stores, seed = open_stores(config), config.train.seed
    kind = PublishedRowBuilder if config.objective.published else RowBuilder
    builders: list[Builder] = [
        kind(
            store.splits[split],
            store,
            config.data,
            config.objective,
            source_seed(seed, name)[0] if name else seed,
        )
        for name, (_, store) in stores.items()
    ]
    if list(stores) == [""]:
        return builders[0]
    return Mixture(list(stores), [rate for rate, _ in stores.values()], builders)


def batches(
    config: Config, split: str = "train", shard_index: int = 0, num_shards: int = 1
) -> RowStream:
    """The Batches of one host, without end.

    Args:
      config: `data`, `objective` and `train.seed` decide every row.
      split: "train" (a new order and new corruption in every epoch) or "eval" (the same rows each
        time). With `objective.published` rows keep the order of their numbers, whatever the split.
      shard_index, num_shards: which host of how many; each gets batch_size / num_shards rows.

    Returns:
      An iterator of numpy `Batch`es [batch_size / num_shards, sequence_length] with
      `get_state() -> bytes` and `set_state(bytes)`.

    Raises:
      ValueError: an unknown split, or a batch that the hosts cannot share evenly.
    """
    return RowStream(
        rows(config, split),
        config.data.batch_size,
        config.train.seed,
        shard_index=shard_index,
        num_shards=num_shards,
        shuffle=split == "train" and not config.objective.published,
    )
