"""From a config to Batches: finds or builds the token stores and opens the row stream on them.

The only module above the floors that reaches up to `tasks/`, and only where the store of a dataset
or a task is missing, so that all other training needs no TensorFlow.
"""

from pathlib import Path

from glm_jax.config import Config, DataConfig
from glm_jax.data.documents import SPLITS
from glm_jax.data.mixing import source_seed
from glm_jax.data.mixture_store import built, sources
from glm_jax.data.published import PublishedRowBuilder
from glm_jax.data.rows import Builder, RowBuilder
from glm_jax.data.sequence import Mixture
from glm_jax.data.store import TokenStore
from glm_jax.data.store_path import is_scheme
from glm_jax.data.stream import RowStream
from glm_jax.errors import UserError
from glm_jax.interop.tokenizers import load_tokenizer


def open_stores(config: Config) -> dict[str, tuple[float, TokenStore]]:
    """Opens the token stores of `config.data`, building those first that are missing.

    Returns:
      Rate and store of each source by its name; of one source alone {"": (1.0, store)}.

    Raises:
      ValueError: a corpus is missing or empty, a store must be built and the packages that build it
        are not installed, or a store's ids are not those of the config's tokenizer.
    """
    parts = sources(config.data)
    for part in parts:
        if not part.directory.exists():
            build_store(part.data, part.directory)
    return {part.name: (part.rate, _open(config, part.directory)) for part in built(parts)}


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


def _open(config: Config, directory: Path) -> TokenStore:
    store = TokenStore.open(directory)
    if store.vocab_size > config.model.vocab_size:
        raise UserError(
            f"model.vocab_size must be at least the tokenizer's {store.vocab_size}; "
            f"got {config.model.vocab_size}"
        )
    used = store.description.get("tokenizer_fingerprint")
    if used is not None and used != load_tokenizer(config.data.tokenizer).fingerprint:
        raise UserError(
            f"the token store {str(directory)!r} was made with another tokenizer "
            f"({store.description.get('tokenizer')!r}) than data.tokenizer="
            f"{config.data.tokenizer!r}"
        )
    return store


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
