"""TFRecords read without TensorFlow; the bytes are written out here, and by TensorFlow itself."""

import struct

import numpy as np
import pytest

from glm_jax.config import DataConfig
from glm_jax.data import tfrecords
from glm_jax.data.crc32c import crc32c, masked
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


def checksum(data):
    content = np.frombuffer(data, np.uint8)
    return masked(crc32c(content, np.array([0]), np.array([len(data)]))).tobytes()


def record(data):
    length = struct.pack("<Q", len(data))
    return length + checksum(length) + data + checksum(data)


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


def found(content):
    return [
        (bytes(content[start:end]), trouble) for start, end, trouble in records(memoryview(content))
    ]


@pytest.mark.parametrize("ahead", [1, 1 << 14])
def test_records(monkeypatch, ahead):
    monkeypatch.setattr(tfrecords, "_RECORDS", ahead)
    content = record(b"one") + record(b"") + record(b"three")
    whole = [(b"one", None), (b"", None), (b"three", None)]
    assert found(content) == whole
    assert found(b"") == []
    for cut in (1, 5, 9):
        assert found(content[:-cut])[:2] == whole[:2]
        (start, end, trouble) = list(records(memoryview(content[:-cut])))[2]
        assert (start, end, trouble) == (35, len(content) - cut, "cut off")


def flipped(content, byte):
    return content[:byte] + bytes([content[byte] ^ 4]) + content[byte + 1 :]


@pytest.mark.parametrize("ahead", [1, 1 << 14])
def test_any_flipped_bit_costs_its_record_alone(monkeypatch, ahead):
    monkeypatch.setattr(tfrecords, "_RECORDS", ahead)
    one, two, three = record(b"first text"), record(b"second"), record(b"third")
    for byte in range(len(two)):
        texts = found(one + flipped(two, byte) + three)
        reason = "with a damaged length" if byte < 12 else "with a wrong checksum"
        assert [trouble for _, trouble in texts] == [None, reason, None]
        assert (texts[0][0], texts[2][0]) == (b"first text", b"third")
    texts = found(one + two + flipped(three, 3))
    assert [trouble for _, trouble in texts] == [None, None, "with a damaged length"]


def test_a_record_is_looked_for_far_behind_a_damaged_length(monkeypatch):
    monkeypatch.setattr(tfrecords, "_SEARCHED", 16)
    content = flipped(record(b"x" * 100), 1) + record(b"next")
    assert [trouble for _, trouble in found(content)] == ["with a damaged length", None]


def test_a_corpus_of_records(tmp_path):
    texts = [f"text {number} of the corpus" for number in range(30)]
    good = [record(example(text=[text.encode()])) for text in texts]
    bad = record(example(title=[b"x"])) + flipped(good[3], 30)
    (tmp_path / "a.tfrecord-00000-of-00002").write_bytes(b"".join(good[:20]) + bad)
    (tmp_path / "a.tfrecord-00001-of-00002").write_bytes(b"".join(good[20:]) + good[0][:-3])
    (tmp_path / "b.tfrecord").write_bytes(b"")
    corpus = scan(DataConfig(source=str(tmp_path / "*"), eval_fraction=0.2))
    assert [corpus.read(index) for index in range(len(corpus.locations))] == texts
    first, second = (f"{tmp_path}/a.tfrecord-0000{number}-of-00002" for number in range(2))
    assert corpus.skipped.summary() == (
        f"skipped 3 records: 1 without text under 'text' ({first}:21), "
        f"1 with a wrong checksum ({first}:22), 1 cut off ({second}:11)"
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
    assert "".join(corpus.read(index) for index in range(len(corpus.locations))) == "".join(texts)
    assert not corpus.skipped.counts
