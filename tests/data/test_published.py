"""Rows of a store by the published rules: the original's micro-batches in rows of T slots."""

import dataclasses
import random

import numpy as np
import pytest

from glm_jax.batch import DOCUMENT, SENTENCE, SPAN
from glm_jax.config import DataConfig, ObjectiveConfig, PublishedOptions
from glm_jax.corruption.published import Texts, build_micro_batch, text_row
from glm_jax.corruption.published.examples import Rules
from glm_jax.data.published import PublishedRowBuilder
from glm_jax.data.rows import RowBuilder
from glm_jax.data.sequence import OneSource
from glm_jax.data.store import Documents, TokenStore
from glm_jax.data.stream import RowStream
from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=9, pad=1, block=10)
V, LENGTH, T = 300, 64, 84  # 64 + 2 * floor(0.15 * 64) and two to spare
RULES = ObjectiveConfig(
    span_rate=0.4,
    sentence_rate=0.3,
    document_rate=0.3,
    document_weight=0.5,
    published=PublishedOptions(loader=True, row_length=LENGTH, micro_batch_rows=4),
)
PARTS = {"block_mask_rate": 0.2}


def store_of(mean=90, total=3000):
    rng = np.random.default_rng(0)
    sizes = rng.geometric(1 / mean, total // mean)
    tokens = rng.integers(20, V, sizes.sum())
    ends = np.isin(np.arange(V), range(20, 35))
    documents = Documents("train", tokens.astype(np.uint16), np.append(0, np.cumsum(sizes)))
    return TokenStore(V, SPECIAL, ends, {"train": documents}, {})


STORE = store_of()


def with_options(rules=RULES, **options):
    """`rules` with other options of the published loader."""
    return dataclasses.replace(rules, published=dataclasses.replace(rules.published, **options))


def builder(length=T, store=STORE, seed=3, rules=RULES, **options):
    config = with_options(rules, **options)
    data = DataConfig(sequence_length=length)
    return PublishedRowBuilder(store.splits["train"], store, data, config, seed)


def examples_of(micro_batch, seed=3, **options):
    """The micro-batch of the original, from the parts that the golden files hold equal to it."""
    config, documents = with_options(**options), STORE.splits["train"]
    rules = Rules(config, SPECIAL, SPECIAL.block, STORE.sentence_ends)
    texts = [
        text_row(
            4 * micro_batch + i,
            Texts(documents.tokens, documents.offsets),
            special=SPECIAL,
            sentence_ends=STORE.sentence_ends,
            length=config.published.row_length,
        )
        for i in range(4)
    ]
    hide = random.Random(f"{seed}/{micro_batch}")
    return build_micro_batch(texts, rules, random.Random(micro_batch), hide)


SHORT = {"short_sequence_rate": 0.5, "row_length": 150}


@pytest.mark.parametrize("options", [PARTS, PARTS | SHORT], ids=["whole", "short"])
def test_rows_are_the_examples_of_their_micro_batches(options):
    made = builder(length=3 * T, **options)
    epoch = made.num_rows
    assert epoch == -(-STORE.splits["train"].num_tokens // options.get("row_length", LENGTH))
    # Rows of two epochs, so that a micro-batch may reach over the end of one.
    numbers = np.arange(2 * epoch)
    batch, counted = made.build(numbers // epoch, numbers % epoch)
    objectives, several = set(), 0
    micro_batches = [examples_of(m, **options) for m in range(len(numbers) // 4 + 1)]
    for number in numbers.tolist():
        micro_batch = micro_batches[number // 4]
        examples = micro_batch.examples[number % 4]
        slot = 0
        for example in examples:
            end = slot + len(example["tokens"])
            for name, value in example.items():
                found = getattr(batch, name)[number, slot:end]
                if name == "loss_weights" and micro_batch.objective == DOCUMENT:
                    value = value * 0.5
                shift = slot if name.startswith("attend") else 0
                np.testing.assert_array_equal(found, value + shift, name)
            slot = end
        assert (batch.attend_end[number] > 0).sum() == slot
        assert (batch.tokens[number, slot:] == SPECIAL.pad).all()
        assert not batch.loss_weights[number, slot:].any()
        objectives.add(micro_batch.objective)
        several += len(examples) > 1
    assert objectives == {SPAN, SENTENCE, DOCUMENT}
    assert (several > 0) == ("short_sequence_rate" in options)
    assert (batch.tokens == SPECIAL.block).any()
    assert counted["rows"] == len(numbers)
    assert counted["rows_cut"] == 0
    assert counted["targets"] == (batch.objective > 0).sum()
    assert counted["places_used"] == (batch.attend_end > 0).sum()
    ends = (batch.objective > 0) & (batch.targets == SPECIAL.end)
    assert counted["masked_tokens"] == counted["targets"] - ends.sum()


def test_a_row_does_not_depend_on_the_rows_beside_it():
    made = builder(**PARTS)
    rows = np.arange(24)
    together, _ = made.build(0 * rows, rows)
    for row in (0, 5, 6, 23):
        alone, _ = made.build(np.zeros(1), np.array([row]))
        for name, value in alone.to_dict().items():
            np.testing.assert_array_equal(value[0], together.to_dict()[name][row])


def test_the_seed_decides_only_what_is_hidden():
    rows = np.arange(40)
    one, other = (builder(seed=seed, **PARTS).build(0 * rows, rows)[0] for seed in (1, 2))
    assert (one.tokens != other.tokens).any()
    changed = one.tokens != other.tokens
    assert ((one.tokens == SPECIAL.block) | (other.tokens == SPECIAL.block))[changed].all()
    np.testing.assert_array_equal(one.targets, other.targets)


def test_dropped_rows_are_padding():
    """Three short documents a row, and spans that only a long one could hold."""
    store = store_of(mean=6)
    rates = {"span_rate": 1.0, "sentence_rate": 0.0, "document_rate": 0.0, "mask_ratio": 0.4}
    made = builder(store=store, rules=dataclasses.replace(RULES, **rates))
    rows = np.arange(40)
    batch, counted = made.build(0 * rows, rows)
    empty = ~(batch.attend_end > 0).any(axis=1)
    assert 0 < counted["rows_dropped"] == empty.sum() < 40
    assert (batch.tokens[empty] == SPECIAL.pad).all()


def test_what_has_no_room_is_cut_and_counted():
    rows = np.arange(40)
    whole, none = builder(length=T).build(0 * rows, rows)
    cut, some = builder(length=LENGTH + 4).build(0 * rows, rows)
    assert none["rows_cut"] == 0
    longer = (whole.attend_end > 0).sum(axis=1) > LENGTH + 4
    assert some["rows_cut"] == longer.sum() > 0
    for name, value in cut.to_dict().items():
        np.testing.assert_array_equal(value, whole.to_dict()[name][:, : LENGTH + 4])


def test_in_a_stream_hosts_share_micro_batches():
    def take(*hosts):
        stream = RowStream(OneSource(builder()), 8, *hosts, shuffle=False)
        batches = [next(stream).tokens for _ in range(3)]
        stream.close()
        return batches

    parts = [take(host, 2) for host in range(2)]
    for whole, *halves in zip(take(), *parts, strict=True):
        np.testing.assert_array_equal(whole, np.concatenate(halves))


def test_rows_beyond_the_last_are_padding():
    made = builder()
    batch, _ = made.build(np.zeros(1), np.array([made.num_rows]))
    assert not batch.attend_end.any()


def test_a_row_builder_does_not_make_published_rows():
    with pytest.raises(UserError, match=r"objective\.published\.loader must be False here"):
        RowBuilder(STORE.splits["train"], STORE, DataConfig(), RULES, seed=0)
