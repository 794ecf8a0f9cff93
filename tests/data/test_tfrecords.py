"""TFRecords read without TensorFlow; the bytes are written out here, and by TensorFlow itself."""

import struct

import pytest

from glm_jax.config import DataConfig
from glm_jax.data.documents import scan
from glm_jax.data.tfrecords import example_text, records


def field(number, value):
    """A field of bytes of a protocol buffer."""
    size, head = len(value), bytes([number << 3 | 2])
    while size > 127:
        head, size = head + bytes([size & 127 | 128]), size >> 7
    return head + bytes([size]) + value


def example(**features):
    entries = [
        field(1, key.encode()) + field(2, field(1, b"".join(field(1, v) for v in values)))
        for key, values in features.items()
    ]
    return field(1, b"".join(field(1, entry) for entry in entries))


def record(data):
    return struct.pack("<QI", len(data), 0) + data + bytes(4)


def test_example_text():
    data = example(title=[b"x"], text=["天地 light".encode()], more=[b"a", b"b"])
    assert example_text(data, "text") == "天地 light"
    # Fields of other kinds are passed over: a varint, a fixed64, a fixed32.
    passed = b"\x10\x96\x01" + b"\x19" + bytes(8) + b"\x25" + bytes(4)
    assert example_text(passed + data, "text") == "天地 light"
    long = example(text=[b"a" * 300_000])
    assert example_text(long, "text") == "a" * 300_000


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (example(title=[b"x"]), "without text under 'text'"),
        (example(text=[b"a", b"b"]), "without text under 'text'"),
        (example(text=[b"\xff"]), "not UTF-8"),
        (b"\x0a\x7f", "not a tf.train.Example"),
        (b"plain text", "not a tf.train.Example"),
        (b"", "without text"),
    ],
)
def test_no_text(data, message):
    with pytest.raises(ValueError, match=message):
        example_text(data, "text")


def test_records():
    content = record(b"one") + record(b"") + record(b"three")
    places = list(records(memoryview(content)))
    assert [content[a:b] for a, b in places] == [b"one", b"", b"three"]
    for cut in (1, 5, 9):
        with pytest.raises(ValueError, match="cut off"):
            list(records(memoryview(content[:-cut])))


def test_a_corpus_of_records(tmp_path):
    texts = [f"text {number} of the corpus" for number in range(30)]
    good = [record(example(text=[text.encode()])) for text in texts]
    bad = record(example(title=[b"x"]))
    (tmp_path / "a.tfrecord-00000-of-00002").write_bytes(b"".join(good[:20]) + bad)
    (tmp_path / "a.tfrecord-00001-of-00002").write_bytes(b"".join(good[20:]) + good[0][:-3])
    (tmp_path / "b.tfrecord").write_bytes(b"")
    corpus = scan(DataConfig(source=str(tmp_path / "*"), eval_fraction=0.2))
    assert [corpus.read(index) for index in range(len(corpus.places))] == texts
    first, second = (f"{tmp_path}/a.tfrecord-0000{number}-of-00002" for number in range(2))
    assert corpus.skipped.summary() == (
        f"skipped 2 records: 1 without text under 'text' ({first}:21), 1 cut off ({second}:11)"
    )


@pytest.mark.tensorflow
def test_what_tensorflow_writes(tmp_path):
    tf = pytest.importorskip("tensorflow")
    texts = ["the light", "天地", "line\nline", "a" * 70_000]
    with tf.io.TFRecordWriter(str(tmp_path / "a.tfrecord")) as writer:
        for number, text in enumerate(texts):
            features = {
                "body": tf.train.Feature(bytes_list=tf.train.BytesList(value=[text.encode()])),
                "id": tf.train.Feature(int64_list=tf.train.Int64List(value=[number])),
                "score": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5])),
            }
            one = tf.train.Example(features=tf.train.Features(feature=features))
            writer.write(one.SerializeToString())
    corpus = scan(DataConfig(source=str(tmp_path / "*.tfrecord"), text_field="body"))
    assert "".join(corpus.read(index) for index in range(len(corpus.places))) == "".join(texts)
    assert not corpus.skipped.counts
