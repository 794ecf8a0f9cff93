"""Rows of a mixture are the sources' own rows, dealt out; hosts and restarts see the same."""

import numpy as np
import pytest

from glm_jax.config import DataConfig, ObjectiveConfig
from glm_jax.data.mixing import Mixing, source_seed
from glm_jax.data.rows import RowBuilder
from glm_jax.data.sequence import Mixture, SourceRows, rows_of
from glm_jax.data.store import Documents, TokenStore
from glm_jax.data.stream import RowStream
from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=9, pad=1)
NAMES, RATES = ["wiki", "books", "code"], [0.6, 0.3, 0.1]


def builder(number, name):
    """A source whose ids lie in a range of its own."""
    rng = np.random.default_rng(number)
    offsets = np.append(0, np.cumsum(rng.geometric(1 / 40, 60)))
    tokens = rng.integers(100 * number + 50, 100 * number + 150, offsets[-1]).astype(np.uint16)
    documents = Documents("train", tokens, offsets)
    store = TokenStore(500, SPECIAL, np.arange(500) % 20 == 0, {"train": documents}, {})
    seed = source_seed(5, name)[0]
    return RowBuilder(documents, store, DataConfig(sequence_length=32), ObjectiveConfig(), seed)


@pytest.fixture(scope="module")
def mixture():
    return Mixture(NAMES, RATES, [builder(k, name) for k, name in enumerate(NAMES)])


def same(one, other):
    return all(np.array_equal(v, getattr(other, name)) for name, v in one.to_dict().items())


def test_rows_are_those_of_the_sources_in_their_turns(mixture):
    numbers = np.arange(400)
    batch, counted = rows_of(mixture, 5)(numbers)
    source, index = Mixing(RATES, [source_seed(5, name)[1] for name in NAMES])(numbers)
    for k, name in enumerate(NAMES):
        own = SourceRows(mixture.builders[k], source_seed(5, name)[0])
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
def test_hosts_and_restarts(mixture, shuffle):
    alone = RowStream(mixture, 8, seed=5, shuffle=shuffle)
    hosts = [RowStream(mixture, 8, 5, host, 2, shuffle=shuffle) for host in range(2)]
    for _ in range(12):
        whole = next(alone)
        halves = [next(host) for host in hosts]
        joined = np.concatenate([half.tokens for half in halves])
        np.testing.assert_array_equal(whole.tokens, joined)
    state = alone.get_state()
    assert state == b"12"
    again = RowStream(mixture, 8, seed=5, shuffle=shuffle)
    again.set_state(state)
    assert same(next(alone), next(again))


def test_one_pass_over_all_rows(mixture):
    stream = RowStream(mixture, 8, seed=5, shuffle=False, repeat=False)
    batches = list(stream)
    assert len(batches) == -(-mixture.num_rows // 8)
    for name, rows in zip(NAMES, mixture.builders, strict=True):
        assert stream.statistics[f"rows/{name}"] >= rows.num_rows
    used = np.concatenate([batch.attend_end.max(axis=1) > 0 for batch in batches])
    assert used.sum() == mixture.num_rows
    assert used[: mixture.num_rows].all()


def test_no_source():
    with pytest.raises(UserError, match="at least one source"):
        Mixture([], [], [])
