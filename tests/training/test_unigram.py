import io

import numpy as np
import pytest

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
    expected = np.zeros((6, 10))
    expected[SPAN, 1] = 2
    expected[DOCUMENT, [0, 2]] = 0.5
    np.testing.assert_array_equal(counts, expected)


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def flip(path):
    content = bytearray(path.read_bytes())
    content[60] ^= 16
    path.write_bytes(content)


def other_counts(value, **rest):
    def change(path):
        with np.load(path) as file:
            data = str(file["data"])
        np.savez(path, **{"counts": value, "data": np.array(data)} | rest)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flip,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("counts"),
        lambda path: np.savez(path, data=np.array("{}")),
        lambda path: np.savez(path, counts=np.ones((6, 32))),  # of an older version
        other_counts(np.ones((6, 7))),
        other_counts(np.full((6, 32), np.nan)),
        other_counts(-np.ones((6, 32))),
        other_counts(np.ones((6, 32), np.int64)),
        other_counts(np.ones((6, 32)), data=np.array('{"": "other"}')),
        other_counts(np.array([[None] * 32] * 6)),
    ],
)
def test_a_file_that_is_damaged_or_of_other_data_is_made_anew(tmp_path, config, stream, damage):
    path = tmp_path / "u.npz"
    counts = target_counts(path, stream, config, {})
    good = path.read_bytes()
    damage(path)
    np.testing.assert_array_equal(target_counts(path, stream, config, {}), counts)
    with np.load(path) as made, np.load(io.BytesIO(good)) as first:
        np.testing.assert_array_equal(made["counts"], first["counts"])
        assert str(made["data"]) == str(first["data"])


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
