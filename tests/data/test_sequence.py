"""Rows of a mixture are the sources' own rows, dealt out; hosts and restarts see the same."""

import numpy as np
import pytest

from glm_jax.config import DataConfig, ObjectiveConfig
from glm_jax.data.mixing import Mixing, source_seed
from glm_jax.data.rows import RowBuilder
from glm_jax.data.sequence import Mixture, OneSource, SourceRows, mixture
from glm_jax.data.store import Documents, TokenStore
from glm_jax.data.stream import RowStream
from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=9, pad=1)
NAMES, RATES = ["wiki", "books", "code"], [0.6, 0.3, 0.1]


def store_of(number):
    """A source whose ids lie in a range of its own."""
    rng = np.random.default_rng(number)
    offsets = np.append(0, np.cumsum(rng.geometric(1 / 40, 60)))
    tokens = rng.integers(100 * number + 50, 100 * number + 150, offsets[-1]).astype(np.uint16)
    documents = Documents("train", tokens, offsets)
    return TokenStore(500, SPECIAL, np.arange(500) % 20 == 0, {"train": documents}, {})


def builder_of(store, seed):
    data = DataConfig(sequence_length=32)
    return RowBuilder(store.splits["train"], store, data, ObjectiveConfig(), seed)


@pytest.fixture(scope="module")
def mixed():
    stores = {name: (RATES[k], store_of(k)) for k, name in enumerate(NAMES)}
    return mixture(stores, 5, builder_of)


def same(one, other):
    return all(np.array_equal(v, getattr(other, name)) for name, v in one.to_dict().items())


def test_rows_are_those_of_the_sources_in_their_turns(mixed):
    numbers = np.arange(400)
    batch, counted = mixed.sequence()(numbers)
    source, index = Mixing(RATES, [source_seed(5, name)[1] for name in NAMES])(numbers)
    for k, name in enumerate(NAMES):
        assert mixed.builders[k].seed == source_seed(5, name)[0]
        own = SourceRows(mixed.builders[k])
        expected, _ = own(index[source == k])
        np.testing.assert_array_equal(batch.tokens[source == k], expected.tokens)
        np.testing.assert_array_equal(batch.attend_end[source == k], expected.attend_end)
        ids = batch.tokens[source == k]
        assert ids[ids > 10].min() >= 100 * k + 50
    assert {name: counted[f"rows/{name}"] for name in NAMES} == {
        name: int((source == k).sum()) for k, name in enumerate(NAMES)
    }
    assert counted["rows"] == 400
    assert counted["rows/wiki"] == pytest.approx(240, abs=1)


@pytest.mark.parametrize("shuffle", [True, False])
def test_hosts_and_restarts(mixed, shuffle):
    alone = RowStream(mixed, 8, shuffle=shuffle)
    hosts = [RowStream(mixed, 8, host, 2, shuffle=shuffle) for host in range(2)]
    for _ in range(12):
        whole = next(alone)
        halves = [next(host) for host in hosts]
        joined = np.concatenate([half.tokens for half in halves])
        np.testing.assert_array_equal(whole.tokens, joined)
    state = alone.get_state()
    assert state == b"12"
    again = RowStream(mixed, 8, shuffle=shuffle)
    again.set_state(state)
    assert same(next(alone), next(again))


def test_one_pass_over_all_rows(mixed):
    stream = RowStream(mixed, 8, shuffle=False, repeat=False)
    batches = list(stream)
    assert len(batches) == -(-mixed.num_rows // 8)
    for name, rows in zip(NAMES, mixed.builders, strict=True):
        assert stream.statistics[f"rows/{name}"] >= rows.num_rows
    used = np.concatenate([batch.attend_end.max(axis=1) > 0 for batch in batches])
    assert used.sum() == mixed.num_rows
    assert used[: mixed.num_rows].all()


def test_no_source():
    with pytest.raises(UserError, match="at least one source"):
        Mixture([], [], [], [])


def test_one_source_is_its_builders_rows_in_their_order():
    builder = builder_of(store_of(1), 9)
    source = OneSource(builder)
    assert (source.num_rows, source.stores) == (builder.num_rows, {"": (1.0, builder.store)})
    numbers = np.arange(2 * builder.num_rows)
    found, _ = source.sequence(shuffle=False)(numbers)
    expected, _ = builder.build(*np.divmod(numbers, builder.num_rows))
    assert same(found, expected)
    shuffled, _ = source.sequence()(numbers)
    assert not same(found, shuffled)
