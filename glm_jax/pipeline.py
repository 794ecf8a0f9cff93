"""From a config to Batches: finds or builds the token store and opens the row stream on it.

The only module above the floors that reaches up to `tasks/`, and only where a store is missing, so
that a host with a store trains without TensorFlow.
"""

from glm_jax.config import Config
from glm_jax.data.documents import SPLITS
from glm_jax.data.rows import RowBuilder
from glm_jax.data.store import TokenStore
from glm_jax.data.store_path import store_name
from glm_jax.data.stream import RowStream
from glm_jax.errors import UserError
from glm_jax.interop.tokenizers import load_tokenizer


def open_store(config: Config) -> TokenStore:
    """Opens the token store of `config.data`, building it first where it is missing.

    Raises:
      ValueError: the corpus is missing or empty, the store must be built and the packages that
        build it are not installed, or the store's ids are not those of the config's tokenizer.
    """
    directory = store_name(config.data)
    if not directory.exists():
        from glm_jax.tasks.store import build_store

        build_store(config.data, directory)
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


def batches(
    config: Config, split: str = "train", shard_index: int = 0, num_shards: int = 1
) -> RowStream:
    """The Batches of one host, without end.

    Args:
      config: `data`, `objective` and `train.seed` decide every row.
      split: "train" (a new order and new corruption in every epoch) or "eval" (the same rows each
        time).
      shard_index, num_shards: which host of how many; each gets batch_size / num_shards rows.

    Returns:
      An iterator of numpy `Batch`es [batch_size / num_shards, sequence_length] with
      `get_state() -> bytes` and `set_state(bytes)`.

    Raises:
      ValueError: an unknown split, or a batch that the hosts cannot share evenly.
    """
    if split not in SPLITS:
        raise UserError(f"split must be one of {list(SPLITS)}; got {split!r}")
    store = open_store(config)
    builder = RowBuilder(
        store.splits[split], store, config.data, config.objective, config.train.seed
    )
    return RowStream(
        builder,
        config.data.batch_size,
        config.train.seed,
        shard_index=shard_index,
        num_shards=num_shards,
        shuffle=split == "train",
    )
