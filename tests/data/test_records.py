"""Records of JSON lines and TFRecords: where they lie, what they hold, why one holds nothing."""

import json
import struct

import pytest

from glm_jax.data.records import read_records, record_text


def crc32c(data):
    """Castagnoli's, bit by bit: 0xE3069283 for b"123456789"."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(data):
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data):
    """Eight bytes of length, its checksum, the data, its checksum."""
    length = struct.pack("<Q", len(data))
    return length + masked(length) + data + masked(data)


def example(text):
    """A tf.train.Example of less than 100 bytes with a text under "text"."""

    def field(number, value):
        return bytes([number << 3 | 2, len(value)]) + value

    feature = field(2, field(1, field(1, text.encode())))
    return field(1, field(1, field(1, b"text") + feature))


def test_the_checksum_is_the_published_one():
    assert crc32c(b"123456789") == 0xE3069283


def test_lines_and_where_they_lie(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a"}\n\n  {"text": "b"} \r\n{"text": "c"}')
    found = list(read_records(path, "json"))
    assert [(start, end) for start, end, _ in found] == [(0, 14), (14, 15), (15, 33), (33, 46)]
    assert [content for *_, content in found] == [
        b'{"text": "a"}',
        b"",
        b'{"text": "b"}',
        b'{"text": "c"}',
    ]


def test_records_and_where_their_data_lies(tmp_path):
    path = tmp_path / "a.tfrecord"
    data = [example("one"), example("天地"), b""]
    path.write_bytes(b"".join(map(record, data)))
    found = list(read_records(path, "tfrecord"))
    assert [content for *_, content in found] == data
    sizes = [len(one) for one in data]
    starts = [12, 12 + sizes[0] + 16, 12 + sizes[0] + 16 + sizes[1] + 16]
    assert [start for start, *_ in found] == starts
    assert [end for _, end, _ in found] == [a + b for a, b in zip(starts, sizes, strict=True)]


def test_a_file_that_is_cut_off_gives_what_is_whole_and_the_reason(tmp_path):
    path = tmp_path / "a.tfrecord"
    whole = record(example("one"))
    path.write_bytes(whole + record(example("two"))[:-3])
    (_, _, first), (_, end, reason) = read_records(path, "tfrecord")
    assert first == example("one")
    assert isinstance(reason, ValueError)
    assert end == path.stat().st_size


def test_an_empty_file_holds_no_records(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"")
    assert list(read_records(path, "tfrecord")) == list(read_records(path, "json")) == []


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b'{"text": "a", "more": 1}', "a"),
        ('\ufeff{"text": "天地"}'.encode(), "天地"),
        (b'{"text": "\\ud83d\\ude00"}', "\U0001f600"),
        (b'{"text": ""}', ""),
        (json.dumps({"text": "a\nb"}).encode(), "a\nb"),
    ],
)
def test_the_text_of_a_line(line, text):
    assert record_text(line, "json", "text") == text
    assert record_text(line.replace(b'"text"', b'"body"'), "json", "body") == text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'{"text": ', "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"body": "a"}', "without text under 'text'"),
        (b'{"text": 3}', "without text under 'text'"),
        (b'["text"]', "without text under 'text'"),
        (b'{"text": "\\ud83d"}', "half a character"),
    ],
)
def test_why_a_line_has_no_text(line, reason):
    with pytest.raises(ValueError, match=reason):
        record_text(line, "json", "text")


def test_the_text_of_an_example():
    assert record_text(example("天地"), "tfrecord", "text") == "天地"
    with pytest.raises(ValueError, match="without text under 'body'"):
        record_text(example("a"), "tfrecord", "body")
