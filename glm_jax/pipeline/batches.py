"""From a config to Batches: the rows of its corpus, and the stream that a host trains on."""

from glm_jax.config import Config
from glm_jax.data.documents import SPLITS
from glm_jax.data.examples.prompt_rows import PromptRowBuilder
from glm_jax.data.examples.reference import ReferenceStore, ScoredRowBuilder
from glm_jax.data.examples.rows import ExampleRowBuilder
from glm_jax.data.examples.store import ExampleStore
from glm_jax.data.published import PublishedRowBuilder
from glm_jax.data.rows import RowBuilder
from glm_jax.data.sequence import Builder, OneSource, Source, mixture
from glm_jax.data.store import TokenStore
from glm_jax.data.stream import RowStream
from glm_jax.errors import UserError, say_once
from glm_jax.paths import expanded
from glm_jax.pipeline.corpus import Corpus
from glm_jax.pipeline.examples import EXAMPLES, PRETRAINING, opened, pretraining


def source(config: Config, split: str = "train") -> Source:
    """The source of the rows of a split.

    Raises:
      UserError: an unknown split, or as `Corpus.stores` or `pipeline.examples.opened`.
    """
    if split not in SPLITS:
        raise UserError(f"split must be one of {list(SPLITS)}; got {split!r}")
    if config.examples.format is not None:
        return _of_examples(config, split)
    stores, seed = Corpus(config).stores(), config.train.seed
    kind = PublishedRowBuilder if config.objective.published.loader else RowBuilder

    def builder_of(store: TokenStore, seed: int) -> Builder:
        return kind(store.splits[split], store, config.data, config.objective, seed)

    if list(stores) == [""]:
        return OneSource(builder_of(stores[""][1], seed))
    return mixture(stores, seed, builder_of)


def _of_examples(config: Config, split: str) -> Source:
    """Rows of examples, or of examples and texts."""
    reference = None
    if config.has_reference and config.preferences.reference is not None:
        reference = ReferenceStore.open(expanded(config.preferences.reference))

    def builder_of(store: ExampleStore | TokenStore, seed: int) -> Builder:
        if isinstance(store, TokenStore):
            return RowBuilder(store.splits[split], store, config.data, config.objective, seed)
        if config.has_rollouts:
            return PromptRowBuilder(_prompts(config, store, split, seed))
        length, packed = config.data.sequence_length, config.examples.packed
        builder = ExampleRowBuilder(split, store, length, packed, seed, config.examples.sharing)
        if builder.cuts:
            say_once(f"the examples {split} {store.fingerprint}", builder.summary)
        if reference is None and not builder.has_margins:
            return builder
        return ScoredRowBuilder(builder, split, reference)

    examples, seed, rate = opened(config), config.train.seed, config.examples.pretraining_rate
    if not rate:
        return OneSource(builder_of(examples, seed))
    texts = Corpus(pretraining(config)).stores()
    if list(texts) != [""]:
        raise UserError("examples.pretraining_source must be one source of texts, not a mixture")
    stores: dict[str, tuple[float, ExampleStore | TokenStore]] = {
        EXAMPLES: (1.0 - rate, examples),
        PRETRAINING: (rate, texts[""][1]),
    }
    return mixture(stores, seed, builder_of)


def _prompts(config: Config, store: ExampleStore, split: str, seed: int) -> ExampleRowBuilder:
    """Prompts that leave room for the longest answer, one a row."""
    length = config.data.sequence_length - config.rollouts.max_new_tokens + 1
    left_out = f"of more than {length} ids, which leave an answer no room"
    rows = ExampleRowBuilder(split, store, length, False, seed, left_out=left_out)
    if rows.cuts:
        say_once(f"the prompts {split} {store.fingerprint}", rows.summary)
    return rows


def batches(
    config: Config, split: str = "train", shard_index: int = 0, num_shards: int = 1
) -> RowStream:
    """The endless stream of Batches of one host.

    Args:
      config: `data`, `examples`, `objective` and `train.seed` determine every row.
      split: "train" (each epoch has its own order and corruption) or "eval" (rows in ascending
        order, the same each time). With `objective.published.loader`, "train" is in ascending
        order too.
      shard_index, num_shards: index of this host and number of hosts; each host gets
        batch_size / num_shards rows.

    Returns:
      An iterator of numpy `Batch`es [batch_size / num_shards, sequence_length] with
      `get_state() -> bytes` and `set_state(bytes)`. Of prompts (`train.loss` of rollouts), of
      `PromptBatch`es, each with the prompts of a cycle.

    Raises:
      ValueError: an unknown split, or a batch that the hosts cannot share evenly.
    """
    size = config.data.batch_size
    if config.has_rollouts:
        size = config.answers_of_a_cycle // config.rollouts.group_size
    return RowStream(
        source(config, split),
        size,
        shard_index=shard_index,
        num_shards=num_shards,
        shuffle=split == "train" and not config.objective.published.loader,
    )
