"""From a config to Batches: the rows of its corpus, and the stream that a host trains on."""

from glm_jax.config import Config
from glm_jax.data.documents import SPLITS
from glm_jax.data.published import PublishedRowBuilder
from glm_jax.data.rows import RowBuilder
from glm_jax.data.sequence import Builder, OneSource, Source, mixture
from glm_jax.data.store import TokenStore
from glm_jax.data.stream import RowStream
from glm_jax.errors import UserError
from glm_jax.pipeline.corpus import Corpus


def source(config: Config, split: str = "train") -> Source:
    """The source of the rows of a split.

    Raises:
      UserError: an unknown split, or as `Corpus.stores`.
    """
    if split not in SPLITS:
        raise UserError(f"split must be one of {list(SPLITS)}; got {split!r}")
    stores, seed = Corpus(config).stores(), config.train.seed
    kind = PublishedRowBuilder if config.objective.published.loader else RowBuilder

    def builder_of(store: TokenStore, seed: int) -> Builder:
        return kind(store.splits[split], store, config.data, config.objective, seed)

    if list(stores) == [""]:
        return OneSource(builder_of(stores[""][1], seed))
    return mixture(stores, seed, builder_of)


def batches(
    config: Config, split: str = "train", shard_index: int = 0, num_shards: int = 1
) -> RowStream:
    """The endless stream of Batches of one host.

    Args:
      config: `data`, `objective` and `train.seed` determine every row.
      split: "train" (each epoch has its own order and corruption) or "eval" (rows in ascending
        order, the same each time). With `objective.published.loader`, "train" is in ascending
        order too.
      shard_index, num_shards: index of this host and number of hosts; each host gets
        batch_size / num_shards rows.

    Returns:
      An iterator of numpy `Batch`es [batch_size / num_shards, sequence_length] with
      `get_state() -> bytes` and `set_state(bytes)`.

    Raises:
      ValueError: an unknown split, or a batch that the hosts cannot share evenly.
    """
    return RowStream(
        source(config, split),
        config.data.batch_size,
        shard_index=shard_index,
        num_shards=num_shards,
        shuffle=split == "train" and not config.objective.published.loader,
    )
