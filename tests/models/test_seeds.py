"""Seeds: 64 bits, of which each one counts."""

import jax
import jaxtyping
import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.models.seeds import fold_name, key_of, normal

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
def test_what_is_no_seed(seed, monkeypatch):
    # A user is told so by this function; the checker of annotations stands aside.
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    with pytest.raises(UserError, match="seed must be "):
        key_of(seed)


KEY = jax.random.key(0)


def test_keys_of_names_differ_and_stay():
    names = ["embedding", "positions", "layers", "attention", "query", "key", "value", "out", "mlp"]
    keys = [jax.random.key_data(fold_name(KEY, name)).tolist() for name in names]
    assert len({tuple(key) for key in keys}) == len(names)
    # crc32(b"mlp") = 0x2603D4F6; a checkpoint of step 0 depends on it.
    expected = jax.random.fold_in(KEY, np.uint32(0x2603D4F6))
    assert jax.random.key_data(expected).tolist() == keys[-1]


def test_first_values_are_drawn_in_float32_and_stored_in_their_dtype():
    drawn = normal(KEY, [300, 40], 0.5, "float32")
    assert (drawn.shape, drawn.dtype.name) == ((300, 40), "float32")
    # Five standard errors of 12,000 draws.
    assert abs(float(drawn.std()) - 0.5) < 5 * 0.5 / np.sqrt(2 * 12_000)
    stored = normal(KEY, [300, 40], 0.5, "bfloat16")
    assert stored.tolist() == drawn.astype("bfloat16").tolist()
