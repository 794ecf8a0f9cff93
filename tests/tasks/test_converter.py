"""`GlmFeatureConverter`: rows of a task padded to T slots, or packed."""

import numpy as np
import pytest

from glm_jax.batch import Batch
from glm_jax.config import Config, DataConfig

seqio = pytest.importorskip("seqio")
tf = pytest.importorskip("tensorflow")
tasks = pytest.importorskip("glm_jax.tasks")
from glm_jax.tasks.converter import GlmFeatureConverter  # noqa: E402
from glm_jax.tasks.features import FIELDS  # noqa: E402

pytestmark = pytest.mark.tensorflow
T = 64


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "small.txt"
    path.write_text("\n\n".join(f"the light of day {n} was good, and so on" for n in range(80)))
    config = Config(data=DataConfig(source=str(path), eval_fraction=0.4))
    yield tasks.register_glm_pretrain(config, "c_pretrain")
    seqio.TaskRegistry.remove("c_pretrain")


def test_full_rows_pass_the_converter_unchanged(task):
    options = {"dataset_split": "eval", "shuffle": False, "seed": 1}
    rows = list(task.get_dataset({"tokens": T}, "eval", shuffle=False, seed=1).as_numpy_iterator())
    for pack in (False, True):
        converter = GlmFeatureConverter(pack=pack)
        dataset = seqio.get_dataset(
            "c_pretrain", {"tokens": T}, feature_converter=converter, **options
        )
        converted = list(dataset.as_numpy_iterator())
        assert len(converted) == len(rows)
        for row, other in zip(rows, converted, strict=True):
            assert set(other) == set(FIELDS)
            assert all(np.array_equal(row[name], other[name]) for name in FIELDS)


def short_rows():
    """C a M E S b and C S, as in the converter's docstring; 0 weights and positions are values."""
    ones = [0, 0, 0, 0, 1, 1], [0, 1]
    values = {
        "tokens": ([2, 11, 3, 1, 6, 12], [2, 6]),
        "targets": ([2, 11, 3, 1, 12, 7], [2, 7]),
        "loss_weights": ones,
        "positions": ([0, 1, 2, 3, 2, 2], [0, 1]),
        "block_positions": ([0, 0, 0, 0, 1, 2], [0, 1]),
        "attend_start": ([0] * 6, [0] * 2),
        "attend_end": ([4, 4, 4, 4, 5, 6], [1, 2]),
        "objective": ones,
    }
    kinds = {name: np.float32 if name == "loss_weights" else np.int32 for name in FIELDS}
    spec = {name: tf.TensorSpec([None], kind) for name, kind in kinds.items()}
    rows = [
        {name: np.array(values[name][index], kinds[name]) for name in FIELDS} for index in range(2)
    ]
    return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=spec)


def test_short_rows_are_padded_or_packed():
    lengths = {"tokens": 9}
    padded = list(GlmFeatureConverter(pad_id=5)(short_rows(), lengths).as_numpy_iterator())
    assert [row["tokens"].tolist() for row in padded] == [
        [2, 11, 3, 1, 6, 12, 5, 5, 5],
        [2, 6, 5, 5, 5, 5, 5, 5, 5],
    ]
    assert padded[1]["attend_end"].tolist() == [1, 2, 0, 0, 0, 0, 0, 0, 0]
    (row,) = GlmFeatureConverter(pack=True, pad_id=5)(short_rows(), lengths).as_numpy_iterator()
    assert row["tokens"].tolist() == [2, 11, 3, 1, 6, 12, 2, 6, 5]
    assert row["attend_start"].tolist() == [0, 0, 0, 0, 0, 0, 6, 6, 0]
    assert row["attend_end"].tolist() == [4, 4, 4, 4, 5, 6, 7, 8, 0]
    assert row["loss_weights"].tolist() == [0, 0, 0, 0, 1, 1, 0, 1, 0]
    assert row["positions"].tolist() == [0, 1, 2, 3, 2, 2, 0, 1, 0]
    assert Batch(**row).tokens.shape == (9,)


def test_a_row_longer_than_t_is_refused():
    with pytest.raises(tf.errors.InvalidArgumentError):
        list(GlmFeatureConverter()(short_rows(), {"tokens": 5}).as_numpy_iterator())
