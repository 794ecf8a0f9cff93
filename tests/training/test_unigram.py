import numpy as np

from glm_jax.batch import DOCUMENT, SPAN, Batch
from glm_jax.training.unigram import count_targets, target_counts, unigram_losses


def test_losses_of_the_docstring():
    found = unigram_losses(np.array([[2.0, 1.0, 0.0]]))
    np.testing.assert_allclose(found, -np.log([[3 / 6, 2 / 6, 1 / 6]]), rtol=1e-6)
    assert found.dtype == np.float32


def test_counts_are_of_targets_with_their_weights_by_objective():
    shape = (2, 3)
    rows = {name: np.zeros(shape, np.int32) for name in Batch.__dataclass_fields__}
    rows["targets"] = np.array([[1, 1, 9], [2, 0, 9]])
    rows["loss_weights"] = np.array([[1, 1, 0], [0.5, 0.5, 0]], np.float32)
    rows["objective"] = np.array([[SPAN, SPAN, 0], [DOCUMENT, DOCUMENT, 0]])
    counts = count_targets(iter([Batch(**rows)]), vocab_size=10, num_rows=2)
    expected = np.zeros((5, 10))
    expected[SPAN, 1] = 2
    expected[DOCUMENT, [0, 2]] = 0.5
    np.testing.assert_array_equal(counts, expected)


def test_an_epoch_is_counted_once(tmp_path, config, stream):
    opened = []

    def open_stream():
        opened.append(stream())
        return opened[-1]

    counts = target_counts(tmp_path / "u.npz", open_stream, config, {})
    again = target_counts(tmp_path / "u.npz", open_stream, config, {})
    np.testing.assert_array_equal(counts, again)
    assert len(opened) == 1
    # 64 rows of five targets, the end of the span among them.
    assert counts.sum() == 64 * 5
    assert counts[:, 5].sum() == 64
