import numpy as np
import pytest

from glm_jax.generation.prefill import prefill
from glm_jax.models.params import bind

LENGTH = np.array([199, 128, 5, 0], np.int32)


def tokens_of(vocab_size, width=256):
    return np.random.default_rng(0).integers(0, vocab_size, (4, width)).astype(np.int32)


def counted(caches, row, count):
    """Keys and values of the slots of a row that count, of all layers."""
    return [np.asarray(part)[row, :, :count] for one in caches for part in (one.keys, one.values)]


def test_in_chunks_as_at_once(causal_lm):
    lm, tokens = causal_lm, tokens_of(causal_lm.config.vocab_size)
    options = {"config": lm.config, "size": 256}
    at_once = prefill(bind(lm.config, lm.params), tokens, LENGTH, width=256, **options)
    chunks = prefill(bind(lm.config, lm.params), tokens, LENGTH, width=64, **options)
    for one, other in zip(at_once, chunks, strict=True):
        np.testing.assert_array_equal(one.length, LENGTH)
        np.testing.assert_array_equal(other.length, LENGTH)
    for row, count in enumerate(LENGTH):
        pairs = zip(counted(at_once, row, count), counted(chunks, row, count), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)


def test_behind_what_caches_hold_as_at_once(causal_lm):
    """Each row keeps another number of tokens; the slots behind them held something else."""
    lm, tokens = causal_lm, tokens_of(causal_lm.config.vocab_size)
    options = {"config": lm.config, "size": 256, "width": 64}
    model, kept = bind(lm.config, lm.params), np.array([60, 100, 5, 0], np.int32)
    begun = np.where(np.arange(256) < kept[:, None], tokens, 7)
    caches = prefill(model, begun, kept + 20, **options)
    behind = prefill(model, tokens, LENGTH, **options, caches=caches, kept=kept)
    at_once = prefill(model, tokens, LENGTH, **options)
    for row, count in enumerate(LENGTH):
        pairs = zip(counted(at_once, row, count), counted(behind, row, count), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(one, other, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(behind[0].length, LENGTH)


@pytest.mark.parametrize("kind", ["lm", "causal_lm"])
def test_who_attends_to_whom(kind, request):
    """Tokens behind the length are seen by none; the last one before it by all, or by itself."""
    lm = request.getfixturevalue(kind)
    tokens, length = tokens_of(lm.config.vocab_size, 64), np.array([40, 30, 5, 1], np.int32)
    options = {"config": lm.config, "size": 64, "width": 64}
    before = prefill(bind(lm.config, lm.params), tokens, length, **options)
    behind, last = tokens.copy(), tokens.copy()
    behind[0, 40:] = 3
    last[0, 39] = (last[0, 39] + 1) % lm.config.vocab_size
    for one, other in zip(
        counted(before, 0, 40),
        counted(prefill(bind(lm.config, lm.params), behind, length, **options), 0, 40),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    changed = counted(prefill(bind(lm.config, lm.params), last, length, **options), 0, 39)[-1]
    same = np.abs(changed - counted(before, 0, 39)[-1]).max(axis=(0, 2)) < 1e-6
    assert same.all() if kind == "causal_lm" else not same.any()
