"""Seeds: 64 bits, of which each one counts."""

import jax
import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.models.seeds import key_of

SEEDS = [0, 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**33, 2**63, 2**64 - 2**32, 2**64 - 1]


def numbers(key):
    return tuple(np.asarray(jax.random.key_data(key)).tolist())


def test_every_bit_counts():
    assert len({numbers(key_of(seed)) for seed in SEEDS}) == len(SEEDS)
    assert len({numbers(key_of(1 << bit)) for bit in range(64)}) == 64


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**31 - 1, 2**31, 2**32 - 1])
def test_seeds_of_32_bits_have_jaxs_own_keys(seed):
    assert numbers(key_of(seed)) == numbers(jax.random.key(seed))


def test_the_same_in_a_compiled_program():
    for seed in SEEDS:
        assert numbers(jax.jit(lambda seed=seed: key_of(seed))()) == numbers(key_of(seed))


@pytest.mark.parametrize("seed", [-1, 2**64, 1.0, True])
def test_what_is_no_seed(seed):
    with pytest.raises(UserError, match="seed must be "):
        key_of(seed)
