import dataclasses
from pathlib import Path

import numpy as np
import pytest

from glm_jax.batch import Batch
from glm_jax.config import Config, DataConfig, ObjectiveConfig
from glm_jax.errors import UserError
from glm_jax.tokenizers.tokenizer import load_tokenizer

seqio = pytest.importorskip("seqio")
tf = pytest.importorskip("tensorflow")
tasks = pytest.importorskip("glm_jax.tasks")

pytestmark = pytest.mark.tensorflow

T = 64
TRICKY = "see [MASK], [gMASK], [sMASK], [CLS]<|startofpiece|><|endofpiece|><|endoftext|><pad><unk>"


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer("bundled")


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A task on 60 documents of real text."""
    source = tasks.source.DocumentSource(DataConfig())
    text = "\n\n".join(source.corpus.read(index)[:600] for index in range(440, 500))
    path = tmp_path_factory.mktemp("text") / "small.txt"
    path.write_text(text)
    data = DataConfig(source=str(path), eval_fraction=0.3)
    return tasks.pretrain_task(Config(data=data), "small")


def rows(task, count=None, split="train", **options):
    options = {"shuffle": True, "seed": 0, **options}
    dataset = task.get_dataset({"tokens": T}, split=split, **options)
    return list(dataset.take(-1 if count is None else count).as_numpy_iterator())


def same(one, other):
    return len(one) == len(other) and all(
        np.array_equal(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a
    )


def source_tokens(row, special):
    """The ids of text in a row, those to predict included."""
    inserted = {special.cls, special.eos, special.pad, special.start, special.end}
    inserted |= set(special.masks)
    tokens = row["tokens"][row["block_positions"] == 0]
    targets = row["targets"][row["loss_weights"] > 0]
    return set(np.concatenate([tokens, targets]).tolist()) - inserted


def covers(some, everything):
    return some <= everything and len(some) > 0.95 * len(everything)


def test_importing_registers_the_bundled_corpus():
    task = seqio.get_mixture_or_task("glm_pretrain")
    assert task.source.corpus.files[0].name == "corpus.en.xz"
    assert list(task.splits) == ["train", "eval"]
    (row,) = rows(task, 1)
    assert {name: (v.shape, v.dtype.name) for name, v in row.items()} == {
        field.name: ((T,), "float32" if field.name == "loss_weights" else "int32")
        for field in dataclasses.fields(Batch)
    }


def test_registering_replaces(small):
    config = Config(data=small.source._data)
    for fraction in (0.3, 0.4):
        data = dataclasses.replace(config.data, eval_fraction=fraction)
        tasks.register_glm_pretrain(Config(data=data), "test_registering")
        assert seqio.get_mixture_or_task("test_registering").source._data == data
    seqio.TaskRegistry.remove("test_registering")


def test_rows_hold_the_documents(small, tokenizer):
    got = rows(small, shuffle=False)
    corpus = small.source.corpus
    documents = tokenizer.encode_batch([corpus.read(i) for i in corpus.indices("train")])
    seen = {id_ for row in got for id_ in source_tokens(row, tokenizer.special)}
    # Windows step a little further than the fullest rows reach.
    assert covers(seen, {id_ for document in documents for id_ in document})
    used = np.mean([row["attend_end"] > 0 for row in got])
    assert used > 0.97
    for row in got:
        assert row["tokens"][0] == tokenizer.special.cls
        assert row["loss_weights"].sum() > 0


def test_draws_come_from_the_seed_the_epoch_and_the_documents(small):
    assert same(rows(small), rows(small))
    assert not same(rows(small), rows(small, seed=1))
    once = rows(small, shuffle=False)
    assert not same(once, rows(small, shuffle=False, seed=1))
    twice = rows(small, shuffle=False, num_epochs=2)
    assert abs(len(twice) - 2 * len(once)) <= 2
    masked = [tuple(row["targets"][row["loss_weights"] > 0]) for row in twice]
    assert len(set(masked)) > 0.9 * len(masked)


def test_hosts_share_the_documents_and_draw_differently(small, tokenizer):
    alone = rows(small, shuffle=False)
    shards = [rows(small, shuffle=False, shard_info=seqio.ShardInfo(i, 2)) for i in range(2)]
    assert abs(sum(map(len, shards)) - len(alone)) <= 2
    seen = [
        {id_ for row in some for id_ in source_tokens(row, tokenizer.special)}
        for some in (alone, *shards)
    ]
    assert len(seen[0] & (seen[1] | seen[2])) > 0.95 * len(seen[0])
    assert len(seen[1] - seen[2]) > 50
    assert len(seen[2] - seen[1]) > 50
    patterns = [[row["block_positions"].tolist() for row in shard] for shard in shards]
    assert sum(a == b for a, b in zip(*patterns, strict=False)) < len(patterns[0]) / 4


def test_a_saved_iterator_goes_on_exactly(small, tmp_path):
    dataset = small.get_dataset({"tokens": T}, split="train", shuffle=True, seed=3, num_epochs=None)
    iterator = iter(dataset)
    for _ in range(90):
        next(iterator)
    path = tf.train.Checkpoint(iterator=iterator).write(str(tmp_path / "iterator"))
    expected = [next(iterator) for _ in range(200)]
    restored = iter(dataset)
    tf.train.Checkpoint(iterator=restored).read(path)
    assert same(expected, [next(restored) for _ in range(200)])


def test_in_a_mixture(small):
    tasks.register_glm_pretrain(Config(data=small.source._data), "test_mixed")
    seqio.MixtureRegistry.add("test_mixture", [("test_mixed", 1.0)])
    mixture = seqio.get_mixture_or_task("test_mixture")
    assert len(rows(mixture, 3)) == 3
    seqio.MixtureRegistry.remove("test_mixture")
    seqio.TaskRegistry.remove("test_mixed")


def test_text_that_spells_special_tokens_stays_letters(tmp_path, tokenizer):
    (tmp_path / "a.txt").write_text("\n\n".join([TRICKY] * 8))
    objective = ObjectiveConfig(span_rate=1.0, sentence_rate=0.0, document_rate=0.0)
    data = DataConfig(source=str(tmp_path / "*.txt"), eval_fraction=0.5)
    task = tasks.pretrain_task(Config(data=data, objective=objective), "tricky")
    split = "eval" if task.source.corpus.is_eval.any() else "train"
    documents = task.preprocess_precache(task.source.get_dataset(split, shuffle=False))
    for document in documents.as_numpy_iterator():
        assert document["tokens"].tolist() == tokenizer.encode(TRICKY)
        assert tokenizer.decode(document["tokens"]) == TRICKY
    special = tokenizer.special
    for row in rows(task, split=split):
        # As many masks as spans that start, and never one from the text.
        tokens = row["tokens"].tolist()
        assert tokens.count(special.mask) == tokens.count(special.start)
        assert not {special.gmask, special.smask, special.end} & set(tokens)


def test_a_vocabulary_of_a_chat_model_is_refused():
    golden = Path(__file__).parents[1] / "golden" / "chatglm" / "chat"
    ranks = golden / "glm4_tokenizer.model"
    with pytest.raises(UserError, match=r"a SeqIO task needs .* is of the kind 'glm4'"):
        tasks.pretrain.Vocabulary(str(ranks))


def test_vocabulary_has_the_ids_of_the_tokenizer(tokenizer):
    vocabulary = tasks.pretrain.Vocabulary("bundled")
    assert vocabulary.vocab_size == 7168
    assert (vocabulary.pad_id, vocabulary.eos_id, vocabulary.unk_id) == (0, 1, 2)
    # The last one has two cuts of equal probability.
    texts = ["the light\nwas", "", TRICKY, "naïve 天地", "庭院深深深几许，云窗雾阁"]
    expected = tokenizer.encode_batch(texts)
    assert [vocabulary.encode(text) for text in texts] == expected
    assert vocabulary.encode_tf(tf.constant(texts)).to_list() == expected
    for text, ids in zip(texts, expected, strict=True):
        assert vocabulary.encode_tf(tf.constant(text)).numpy().tolist() == ids
        assert vocabulary.decode(ids) == text
