"""`DocumentSource`: the documents of a corpus for SeqIO, on any number of hosts."""

import pytest

from glm_jax.config import DataConfig

seqio = pytest.importorskip("seqio")
tf = pytest.importorskip("tensorflow")
from glm_jax.tasks.source import DocumentSource  # noqa: E402

pytestmark = pytest.mark.tensorflow


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("text") / "small.txt"
    # More than two batches of reading, in two scripts.
    path.write_text("\n\n".join(f"day {n} 天地" for n in range(200)), encoding="utf-8")
    return DocumentSource(DataConfig(source=str(path), eval_fraction=0.2))


def read(source, split="train", shuffle=False, **options):
    dataset = source.get_dataset(split, shuffle=shuffle, **options)
    assert dataset.element_spec == {"text": tf.TensorSpec([], tf.string)}
    return [example["text"].decode() for example in dataset.as_numpy_iterator()]


def test_both_splits_together_are_the_corpus(source):
    train, held_out = read(source), read(source, "eval")
    assert sorted(train + held_out) == sorted(f"day {n} 天地" for n in range(200))
    # A share of 0.2 by the text's hash: five standard deviations of 5.7 about 40.
    assert 12 < len(held_out) < 68
    numbers = [int(text.split()[1]) for text in train]
    assert numbers == sorted(numbers)


def test_hosts_have_every_document_once(source):
    parts = [read(source, shard_info=seqio.ShardInfo(index, 3)) for index in range(3)]
    assert sorted(text for part in parts for text in part) == sorted(read(source))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_shuffling_is_of_the_whole_and_by_the_seed(source):
    straight = read(source)
    one, again, other = (read(source, shuffle=True, seed=seed) for seed in (1, 1, 2))
    assert one == again
    assert sorted(one) == sorted(other) == sorted(straight)
    # Among the first quarter there are documents of the last: no buffer that is filled in order.
    assert set(one[: len(one) // 4]) & set(straight[-len(one) // 4 :])
    assert len({tuple(one), tuple(other), tuple(straight)}) == 3


def test_what_seqio_asks(source):
    assert source.supports_arbitrary_sharding
    assert source.performs_internal_shuffling
    assert list(source.splits) == ["train", "eval"]
    assert len(source.list_shards("train")) == 64
    few = min(64, len(read(source, "eval")))
    assert source.list_shards("eval") == [f"eval-{n}" for n in range(few)]


def test_nothing_is_read_before_a_dataset_is_asked_for(tmp_path):
    source = DocumentSource(DataConfig(source=str(tmp_path / "none/*.txt")))
    with pytest.raises(ValueError, match="no file matches"):
        source.get_dataset("train")
