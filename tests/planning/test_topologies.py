import pytest

from glm_jax.errors import UserError
from glm_jax.planning.chips import CHIPS
from glm_jax.planning.topologies import TOPOLOGIES, parse_topology


@pytest.mark.parametrize(
    "name",
    ["v5e", "v5e:", "v5e:4", "v5e:3x3", "v5e:4x4x4", "v5p:4x4", "v5p:0x4x4", "v5p:8x4x4", "h100:3"],
)
def test_an_unknown_topology_lists_the_known(name):
    with pytest.raises(UserError, match=f"no topology '{name}'.* v5e: 1x1 2x2 2x4 4x4 4x8 .*v6e"):
        parse_topology(name)


def test_the_nearest_topology_is_offered():
    with pytest.raises(UserError, match="did you mean 'v5e:16x16'"):
        parse_topology("v5e-16x16")
    assert all(parse_topology(name) for name in TOPOLOGIES)


def test_a_name_gives_the_chip_and_the_sides():
    assert parse_topology("v5p:4x4x8") == (CHIPS["v5p"], (4, 4, 8))
    assert parse_topology("h100:8") == (CHIPS["h100"], (8,))
