"""Datasets of TFDS and registered tasks and mixtures, into SeqIO sources and token stores."""

import json
import sys

import numpy as np
import pytest

from glm_jax.config import Config, DataConfig
from glm_jax.data import cutting
from glm_jax.data.mixture_store import INDEX
from glm_jax.data.store import TokenStore
from glm_jax.errors import UserError
from glm_jax.pipeline.batches import batches
from glm_jax.tokenizers.tokenizer import load_tokenizer

seqio = pytest.importorskip("seqio")
tf = pytest.importorskip("tensorflow")
tasks = pytest.importorskip("glm_jax.tasks")
from glm_jax.tasks.named import NamedSource  # noqa: E402
from glm_jax.tasks.store import build_store  # noqa: E402

pytestmark = pytest.mark.tensorflow
TEXTS = [f"text {number} of 天地" for number in range(60)]
TOKENIZER = load_tokenizer("bundled")


def texts_of(store, split):
    documents = store.splits[split]
    bounds = zip(documents.offsets[:-1], documents.offsets[1:], strict=True)
    return [TOKENIZER.decode(documents.tokens[a:b].tolist()) for a, b in bounds]


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Tasks: of texts with and without a held-out split, of ids, and a mixture."""

    def texts(split, shuffle_files=False, seed=None):
        lines = TEXTS if split == "train" else ["held", "out"]
        lines = [line.encode() for line in lines]
        return tf.data.Dataset.from_tensor_slices({"body": [*lines, b"\xff", b" "]})

    def add(name, splits, preprocessors, features):
        source = seqio.FunctionDataSource(texts, splits=splits)
        seqio.TaskRegistry.add(name, source, features, preprocessors, metric_fns=[])

    vocabulary = tasks.pretrain.Vocabulary("bundled")
    ids = {"targets": seqio.Feature(vocabulary, add_eos=False)}

    def encode(dataset):
        texts = dataset.map(lambda one: {"text": one["body"]}).filter(
            lambda one: tf.strings.length(one["text"]) > 1
        )
        return tasks.pretrain.tokenize(texts, vocabulary).map(
            lambda one: {"targets": one["tokens"]}
        )

    add("t_texts", ["train"], [], {})
    add("t_held", ["train", "validation"], [], {})
    add("t_ids", ["train"], [encode, seqio.CacheDatasetPlaceholder()], ids)
    other = seqio.Feature(seqio.ByteVocabulary(), add_eos=False)
    add("t_bytes", ["train"], [encode], {"targets": other})
    seqio.MixtureRegistry.add("t_mixed", [("t_texts", 3.0), ("t_held", 1.0)])
    yield
    seqio.MixtureRegistry.remove("t_mixed")
    for name in ("t_texts", "t_held", "t_ids", "t_bytes"):
        seqio.TaskRegistry.remove(name)


def data(name, **settings):
    return DataConfig(source=name, text_field="body", **settings)


def test_texts_of_a_task(tmp_path, capsys):
    build_store(data("task:t_texts", eval_fraction=0.3), tmp_path / "store", progress=False)
    store = TokenStore.open(tmp_path / "store")
    train, held = texts_of(store, "train"), texts_of(store, "eval")
    assert sorted(train + held) == sorted(TEXTS)
    assert 8 < len(held) < 30
    assert train == [text for text in TEXTS if text in set(train)]
    assert store.description["source"] == "task:t_texts"
    # Both splits read all examples.
    assert store.description["skipped_examples"] == {"not UTF-8": 2}
    assert "skipped examples of task:t_texts: 2 not UTF-8" in capsys.readouterr().err


def test_long_texts_are_cut_as_those_of_files_and_odd_ones_left_out(tmp_path, monkeypatch):
    monkeypatch.setattr(cutting, "PART_SIZE", 20)
    texts = [*TEXTS[:20], "a text that is longer than twenty bytes", "half \0 a text"]
    monkeypatch.setattr(sys.modules[__name__], "TEXTS", texts)
    build_store(data("task:t_texts", eval_fraction=0.3), tmp_path / "store", progress=False)
    store = TokenStore.open(tmp_path / "store")
    parts = [part for text in texts[:-1] for part in cutting.cut(text)]
    assert len(parts) > 21
    assert sorted(texts_of(store, "train") + texts_of(store, "eval")) == sorted(parts)
    assert store.description["skipped_examples"] == {"not UTF-8": 2, "with NULs": 2}


def test_a_held_out_split_of_its_own(tmp_path):
    build_store(data("task:t_held", eval_fraction=0.3), tmp_path / "store", progress=False)
    store = TokenStore.open(tmp_path / "store")
    assert texts_of(store, "train") == TEXTS
    assert texts_of(store, "eval") == ["held", "out"]


def test_ids_of_a_task(tmp_path):
    build_store(data("task:t_ids", eval_fraction=0.3), tmp_path / "store", progress=False)
    store = TokenStore.open(tmp_path / "store")
    expected = [TOKENIZER.decode(TOKENIZER.encode(text)) for text in TEXTS]
    read = texts_of(store, "train") + texts_of(store, "eval")
    assert set(expected) <= set(read)


def test_a_mixture_trains_with_its_rates(tmp_path):
    config = Config(
        data=data("task:t_mixed", store=str(tmp_path / "m"), sequence_length=64, batch_size=8)
    )
    stream = batches(config)
    found = [next(stream) for _ in range(4)]
    stream.close()
    assert json.loads((tmp_path / "m" / INDEX).read_text()) == {
        "source": "task:t_mixed",
        "rates": {"t_texts": 3.0, "t_held": 1.0},
    }
    assert stream.statistics["rows/t_texts"] == 24
    assert stream.statistics["rows/t_held"] == 8
    again = batches(config, shard_index=1, num_shards=2)
    np.testing.assert_array_equal(next(again).tokens, found[0].tokens[4:])
    again.close()


def test_a_registered_task_on_a_named_source():
    config = Config(data=data("task:t_held", sequence_length=64))
    task = tasks.pretrain_task(config, "t_pretrain")
    (row,) = (
        task.get_dataset({"tokens": 64}, split="eval", shuffle=False).take(1).as_numpy_iterator()
    )
    assert row["tokens"][0] == TOKENIZER.special.cls
    assert isinstance(task.source, NamedSource)


def test_a_config_with_a_mixture_registers_a_mixture(tmp_path):
    (tmp_path / "a.txt").write_text("\n\n".join(TEXTS))
    mixture = {"held-out": ("task:t_held", 1), "files": (str(tmp_path / "*.txt"), 2)}
    made = tasks.register_glm_pretrain(Config(data=data("x", mixture=mixture)), "t_config")
    assert made is seqio.get_mixture_or_task("t_config")
    rates = {task.name: made.get_rate(task) for task in made.tasks}
    assert rates == {"t_config_held_out": 1.0, "t_config_files": 2.0}
    seqio.MixtureRegistry.remove("t_config")
    for task in made.tasks:
        seqio.TaskRegistry.remove(task.name)


def test_tfds(tmp_path):
    import tensorflow_datasets as tfds

    class GlmTestText(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            features = tfds.features.FeaturesDict({"body": tfds.features.Text()})
            return tfds.core.DatasetInfo(builder=self, features=features)

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            yield from ((number, {"body": text}) for number, text in enumerate(TEXTS))

    GlmTestText(data_dir=str(tmp_path)).download_and_prepare()
    settings = {"tfds_data_dir": str(tmp_path), "eval_fraction": 0.3}
    build_store(data("tfds:glm_test_text:1.0.0", **settings), tmp_path / "store", progress=False)
    store = TokenStore.open(tmp_path / "store")
    assert sorted(texts_of(store, "train") + texts_of(store, "eval")) == sorted(TEXTS)
    # The split is that of the same texts in files.
    build_store(data("task:t_texts", eval_fraction=0.3), tmp_path / "other", progress=False)
    assert set(texts_of(store, "eval")) == set(
        texts_of(TokenStore.open(tmp_path / "other"), "eval")
    )
    # TensorFlow gives up at a damaged record: one sentence, and no store.
    (records,) = tmp_path.glob("glm_test_text/1.0.0/*.tfrecord*")
    content = bytearray(records.read_bytes())
    content[20] ^= 4
    records.write_bytes(content)
    with pytest.raises(UserError, match=r"^data\.source='tfds:.*' holds a damaged record: "):
        build_store(data("tfds:glm_test_text:1.0.0", **settings), tmp_path / "third")
    assert not list(tmp_path.glob("*third*"))


@pytest.mark.parametrize(
    ("source", "settings", "message"),
    [
        ("task:t_text", {}, r"no SeqIO task or mixture 't_text' is registered \(did you mean"),
        ("task:t_texts", {"task_module": "no_such_module"}, "cannot import data.task_module"),
        (
            "task:t_texts",
            {"text_field": "text"},
            r"a text under data.text_field='text'.*\['body'\]",
        ),
        ("task:t_bytes", {"text_field": "text"}, "ids of another vocabulary|a text under"),
        ("tfds:glm_no_such_text:1.0.0", {"tfds_data_dir": "/nowhere"}, "no dataset 'glm_no_such"),
        ("tfds:glm_no_version", {}, r"no dataset 'glm_no_version' \(NAME:VERSION\)"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(tmp_path, source, settings, message):
    config = DataConfig(source=source, **{"text_field": "body", **settings})
    with pytest.raises(UserError, match=message):
        build_store(config, tmp_path / "stores" / "one", progress=False)
    assert not (tmp_path / "stores").exists() or not list((tmp_path / "stores").iterdir())
