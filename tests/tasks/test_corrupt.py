"""The numpy core as a SeqIO preprocessor: what a stream of documents becomes."""

import numpy as np
import pytest

from glm_jax.batch import Batch
from glm_jax.config import DataConfig, ObjectiveConfig
from glm_jax.tokenizers.tokenizer import load_tokenizer

seqio = pytest.importorskip("seqio")
tf = pytest.importorskip("tensorflow")
from glm_jax.tasks.corrupt import corrupt_documents  # noqa: E402
from glm_jax.tasks.features import DTYPES, FIELDS  # noqa: E402

pytestmark = pytest.mark.tensorflow
TOKENIZER = load_tokenizer("bundled")
SPECIAL = TOKENIZER.special


def documents(*texts):
    signature = {"tokens": tf.TensorSpec([None], tf.int32), "id": tf.TensorSpec([], tf.int32)}
    rows = [{"tokens": np.array(t, np.int32), "id": np.int32(i)} for i, t in enumerate(texts)]
    return tf.data.Dataset.from_generator(lambda: iter(rows), output_signature=signature)


def rows_of(dataset, length=64, seed=3, **objective):
    with seqio.utils.map_seed_manager(seed):
        found = corrupt_documents(
            dataset,
            length and {"tokens": length},
            data=DataConfig(sequence_length=32),
            objective=ObjectiveConfig(**objective),
            tokenizer=TOKENIZER,
        )
    return list(found.as_numpy_iterator())


def texts(count=70, size=40):
    draws = np.random.default_rng(0)
    return [draws.integers(300, 7000, size).tolist() for _ in range(count)]


def test_the_features_are_the_fields_of_a_batch():
    (row,) = rows_of(documents(range(300, 320)))
    assert tuple(row) == FIELDS == tuple(Batch.__dataclass_fields__)
    for name, value in row.items():
        assert (value.shape, value.dtype) == ((64,), DTYPES[name].as_numpy_dtype)
    assert rows_of(documents(range(300, 320)), length=None)[0]["tokens"].shape == (32,)


def test_nothing_of_a_text_is_lost_and_nothing_is_invented():
    """[CLS], the text with a mask for each span, eos; then the spans, each with its end."""
    text = list(range(300, 340))
    (row,) = rows_of(documents(text), shuffle_spans=False)
    used = row["attend_end"] > 0
    part_a = row["tokens"][used & (row["block_positions"] == 0)].tolist()
    targets = row["targets"][row["loss_weights"] > 0].tolist()
    spans, span = [], []
    for id_ in targets:
        if id_ == SPECIAL.end:
            spans, span = [*spans, span], []
        else:
            span.append(id_)
    assert span == []
    assert part_a.count(SPECIAL.mask) == len(spans) >= 1
    left = iter(spans)
    whole = [t for id_ in part_a for t in (next(left) if id_ == SPECIAL.mask else [id_])]
    assert whole == [SPECIAL.cls, *text, SPECIAL.eos]
    assert (row["tokens"][~used] == SPECIAL.pad).all()


def test_draws_come_from_the_seed_and_the_documents():
    def patterns(seed, some):
        return [row["block_positions"].tolist() for row in rows_of(documents(*some), seed=seed)]

    some = texts()
    assert patterns(3, some) == patterns(3, some)
    assert patterns(3, some) != patterns(4, some)
    # Another host has other documents under the same seed.
    other = [[id_ + 1 for id_ in text] for text in some]
    same = [a == b for a, b in zip(patterns(3, some), patterns(3, other), strict=False)]
    assert sum(same) < len(same) / 4


def test_empty_documents_are_passed_over():
    some = texts(3)
    with_empty = rows_of(documents([], some[0], [], some[1], some[2], []))
    for row, other in zip(rows_of(documents(*some)), with_empty, strict=True):
        np.testing.assert_array_equal(row["tokens"], other["tokens"])
    assert rows_of(documents([], [])) == []
