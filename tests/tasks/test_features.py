import numpy as np
import pytest

from glm_jax.batch import Batch

seqio = pytest.importorskip("seqio")
tasks = pytest.importorskip("glm_jax.tasks")
from glm_jax.tasks.features import DTYPES, FIELDS, output_features  # noqa: E402

pytestmark = pytest.mark.tensorflow


def test_they_are_the_fields_of_a_batch_and_ids_alone_have_a_vocabulary():
    assert tuple(Batch.__dataclass_fields__) == FIELDS
    assert {name: dtype.as_numpy_dtype for name, dtype in DTYPES.items()} == {
        name: np.float32 if name == "loss_weights" else np.int32 for name in FIELDS
    }
    vocabulary = tasks.pretrain.Vocabulary("bundled")
    features = output_features(vocabulary)
    assert tuple(features) == FIELDS
    ids = {n for n, f in features.items() if not isinstance(f, seqio.ContinuousFeature)}
    assert ids == {"tokens", "targets"}
    assert not features["tokens"].add_eos
