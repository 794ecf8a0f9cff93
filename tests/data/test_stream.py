"""The stream: the same batches on any number of hosts and after any interruption."""

import threading

import numpy as np
import pytest

from glm_jax.config import DataConfig, ObjectiveConfig
from glm_jax.data.rows import RowBuilder
from glm_jax.data.sequence import OneSource
from glm_jax.data.store import Documents, TokenStore
from glm_jax.data.stream import RowStream
from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=9, pad=1)


def source(size=4000, length=64, seed=5):
    rng = np.random.default_rng(0)
    offsets = np.append(0, np.cumsum(rng.geometric(1 / 50, size // 50)))
    documents = Documents("train", rng.integers(30, 500, offsets[-1]).astype(np.uint16), offsets)
    store = TokenStore(500, SPECIAL, np.arange(500) < 40, {"train": documents}, {})
    objective = ObjectiveConfig(span_rate=0.5, sentence_rate=0.25, document_rate=0.25)
    data = DataConfig(sequence_length=length)
    return OneSource(RowBuilder(documents, store, data, objective, seed))


ROWS = source()
build = ROWS.builders[0].build


def take(stream, count):
    return [next(stream) for _ in range(count)]


def assert_equal(first, second):
    for one, other in zip(first, second, strict=True):
        for name, value in one.to_dict().items():
            np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)


def joined(parts):
    """Global batches from the batches of each host, in the order of the hosts."""
    return [
        type(shares[0])(
            **{
                name: np.concatenate([getattr(share, name) for share in shares])
                for name in shares[0].to_dict()
            }
        )
        for shares in zip(*parts, strict=True)
    ]


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("hosts", [2, 4])
def test_any_number_of_hosts_has_the_same_global_batches(hosts, shuffle):
    count = 2 * ROWS.num_rows // 8 + 2  # crosses two epochs
    alone = take(RowStream(ROWS, 8, shuffle=shuffle), count)
    parts = [take(RowStream(ROWS, 8, host, hosts, shuffle=shuffle), count) for host in range(hosts)]
    assert parts[0][0].shape == (8 // hosts, 64)
    assert_equal(alone, joined(parts))


def test_every_row_once_in_an_epoch_and_each_epoch_in_its_own_order():
    n = ROWS.num_rows
    stream = RowStream(ROWS, 1)
    first, second = ([next(stream).tokens[0] for _ in range(n)] for _ in range(2))
    for epoch, rows in enumerate((first, second)):
        expected, _ = build(np.full(n, epoch), np.arange(n))
        assert {row.tobytes() for row in rows} == {row.tobytes() for row in expected.tokens}
    expected, _ = build(np.zeros(n, int), np.arange(n))
    assert any((row != other).any() for row, other in zip(first, expected.tokens, strict=True))


def test_without_shuffling_rows_ascend_from_epoch_0():
    batch = next(RowStream(ROWS, 6, shuffle=False))
    assert_equal([batch], [build(np.zeros(6, int), np.arange(6))[0]])


@pytest.mark.parametrize("stop", [0, 1, 7, 40])
def test_restoring_goes_on_exactly_on_other_hosts_too(stop):
    stream = RowStream(ROWS, 8)
    take(stream, stop)
    state = stream.get_state()
    expected = take(stream, 12)
    again = RowStream(ROWS, 8)
    take(again, 3)
    again.set_state(state)
    assert again.get_state() == state
    assert_equal(take(again, 12), expected)
    hosts = [RowStream(ROWS, 8, host, 2) for host in range(2)]
    for host in hosts:
        host.set_state(state)
    assert_equal(joined([take(host, 12) for host in hosts]), expected)


def test_a_far_state_costs_nothing():
    stream = RowStream(ROWS, 8)
    stream.set_state(b"100000000")
    next(stream)
    assert stream.get_state() == b"100000001"


@pytest.mark.parametrize("state", [b"", b"-1", b"seven", b"1.5", b"9" * 40, "7", None])
def test_garbage_is_no_state(state):
    with pytest.raises(ValueError, match="not the state of a row stream"):
        RowStream(ROWS, 8).set_state(state)


def test_a_state_lies_within_one_epoch():
    batches = -(-ROWS.num_rows // 8)
    stream = RowStream(ROWS, 8, repeat=False)
    stream.set_state(str(batches).encode())
    assert list(stream) == []
    with pytest.raises(ValueError, match="not the state of a row stream"):
        stream.set_state(str(batches + 1).encode())


def test_an_epoch_smaller_than_a_batch():
    tiny = source(size=100)
    assert tiny.num_rows < 8
    batch = next(RowStream(tiny, 32))
    assert batch.shape == (32, 64)
    assert (batch.loss_weights.sum(axis=1) > 0).all()
    assert len(np.unique(batch.tokens, axis=0)) > tiny.num_rows  # corrupted anew in each epoch


def test_one_epoch_ends_with_padding():
    batches = list(RowStream(ROWS, 24, repeat=False))
    n = ROWS.num_rows
    assert n % 24
    assert len(batches) == -(-n // 24)
    used = np.concatenate([batch.attend_end.max(axis=1) > 0 for batch in batches])
    assert used.tolist() == [True] * n + [False] * (24 * len(batches) - n)


def test_statistics_are_sums_over_what_was_delivered():
    stream = RowStream(ROWS, 8)
    assert stream.statistics == {}
    batches = take(stream, 5)
    assert stream.statistics["rows"] == 40
    assert stream.statistics["targets"] == sum((b.loss_weights > 0).sum() for b in batches)


@pytest.mark.parametrize(("index", "shards"), [(2, 2), (-1, 2), (0, 0)])
def test_shards_must_exist(index, shards):
    with pytest.raises(UserError, match=f"shard_index={index}, num_shards={shards}"):
        RowStream(ROWS, 8, index, shards)


def test_hosts_must_share_evenly():
    with pytest.raises(UserError, match="8 rows for 3 hosts"):
        RowStream(ROWS, 8, 0, 3)


def test_a_stream_has_no_thread_and_gives_nothing_once_closed():
    before = threading.active_count()
    stream = RowStream(ROWS, 8)
    next(stream)
    assert threading.active_count() == before
    stream.close()
    with pytest.raises(ValueError, match="closed"):
        next(stream)
