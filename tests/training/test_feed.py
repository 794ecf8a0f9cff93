import jax
import numpy as np
import pytest

from glm_jax.sharding.mesh import batch_sharding, make_mesh
from glm_jax.training.feed import Feed


@pytest.fixture
def sharding(config):
    return batch_sharding(make_mesh(config.mesh))


def test_each_batch_comes_with_the_state_after_it(stream, sharding):
    feed = Feed(stream(), sharding)
    plain = stream()
    for _ in range(5):
        fed, batch = next(feed), next(plain)
        jax.tree.map(np.testing.assert_array_equal, fed.batch, batch)
        assert fed.stream_state == plain.get_state()
        assert fed.statistics["rows"] == 4
        # Five targets a row, of spans and of documents in turn.
        assert fed.statistics["targets/span"] == fed.statistics["targets/document"] == 10
    resumed = stream()
    resumed.set_state(fed.stream_state)
    again = Feed(resumed, sharding)
    jax.tree.map(np.testing.assert_array_equal, next(again).batch, next(plain))
    again.close()
    feed.close()


def test_an_error_of_the_stream_reaches_the_loop(stream, sharding):
    class Broken(stream):
        def __next__(self):
            if self._next == 2:
                raise OSError("disk gone")
            return super().__next__()

    feed = Feed(Broken(), sharding)
    next(feed), next(feed)
    with pytest.raises(OSError, match="disk gone"):
        next(feed)
    feed.close()
