import json
import mmap
import struct
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from glm_jax.errors import UserError
from glm_jax.interop import weights
from glm_jax.interop.weights import (
    TensorToWrite,
    copy_out,
    open_weights,
    own_memory,
    write_safetensors,
)

BF16 = ml_dtypes.bfloat16
TENSORS = {
    "odd": np.arange(3, dtype=np.float16),
    "table": np.arange(12, dtype=np.float32).reshape(4, 3) / 7,
    "short": np.arange(10, dtype=np.float32).reshape(5, 2).astype(BF16),
}


def to_write(tensors):
    return [
        TensorToWrite(name, tensor.shape, tensor.dtype, lambda tensor=tensor: tensor)
        for name, tensor in tensors.items()
    ]


def same(found, tensors):
    assert found.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert found[name].shape == tensor.shape
        assert found[name].dtype == tensor.dtype
        read = found[name].read()
        assert read.dtype == tensor.dtype
        np.testing.assert_array_equal(read, tensor)


def test_what_safetensors_wrote_is_read(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors", metadata={"format": "pt"})
    same(open_weights(tmp_path), TENSORS)


def test_what_is_written_safetensors_reads(tmp_path):
    path = tmp_path / "model.safetensors"
    # Written one by one; those with the widest dtype first, so that all are aligned.
    assert list(write_safetensors(path, to_write(TENSORS))) == ["table", "odd", "short"]
    read = load_file(path)
    assert read.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert read[name].dtype == tensor.dtype
        np.testing.assert_array_equal(read[name], tensor)
    same(open_weights(tmp_path), TENSORS)


def test_a_tensor_is_converted_and_laid_out_as_it_is_written(tmp_path):
    path = tmp_path / "model.safetensors"
    table = TENSORS["table"]
    tensor = TensorToWrite("t", (3, 4), np.dtype(BF16), lambda: table.T)
    assert list(write_safetensors(path, [tensor])) == ["t"]
    np.testing.assert_array_equal(load_file(path)["t"], table.T.astype(BF16))
    wrong = TensorToWrite("t", (4, 3), np.dtype(BF16), lambda: table.T)
    with pytest.raises(ValueError, match="t has shape"):
        list(write_safetensors(path, [wrong]))


def test_other_dtypes_are_seen_but_not_read(tmp_path):
    odd = {"double": np.zeros((2, 2), np.float64), "packed": np.full((2, 2), -7, np.int8)}
    save_file(odd, tmp_path / "model.safetensors")
    found = open_weights(tmp_path)
    assert (found["double"].dtype, found["double"].code) == (None, "F64")
    assert (found["packed"].dtype, found["packed"].code) == (np.int8, "I8")
    np.testing.assert_array_equal(found["packed"].read(), odd["packed"])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BF16], ids=str)
def test_copying_out_in_blocks_is_the_whole(tmp_path, monkeypatch, dtype):
    tensor = np.random.default_rng(0).normal(size=(37, 6, 5)).astype(np.float32)
    save_file({"t": tensor}, tmp_path / "model.safetensors")
    monkeypatch.setattr(weights, "_BLOCK_BYTES", 700)
    for view in (lambda x: x, lambda x: x.T, lambda x: x[3:30, :, ::2].transpose(1, 0, 2)):
        mapped = view(open_weights(tmp_path)["t"].read())
        out = np.empty(mapped.shape, dtype)
        copy_out(mapped, out)
        np.testing.assert_array_equal(out, view(tensor).astype(dtype))


def test_memory_of_its_own_is_kept_while_it_is_copied(monkeypatch):
    """It has no file to be read from again."""
    monkeypatch.setattr(weights, "_BLOCK_BYTES", 4096)
    array = own_memory((64, 4096), np.dtype(np.int8))
    array[:] = np.arange(64, dtype=np.int8)[:, None]
    assert array.ctypes.data % 64 == 0
    for view in (array, array[1:].T):
        out = np.empty(view.shape, np.int8)
        for _ in range(2):
            copy_out(view, out)
        np.testing.assert_array_equal(out, view)
    np.testing.assert_array_equal(array.sum(1), 4096 * np.arange(64))
    assert own_memory((0, 3), np.dtype(np.float32)).shape == (0, 3)


@pytest.mark.skipif(not hasattr(mmap, "MADV_DONTNEED"), reason="no madvise")
def test_pages_are_given_back(tmp_path):
    tensor = np.ones((64, 2**18), np.float32)  # 64 MiB
    save_file({"t": tensor}, tmp_path / "model.safetensors")
    mapped = open_weights(tmp_path)["t"].read()
    assert resident(mapped) < 8 * 2**20
    copy_out(mapped, tensor)
    assert resident(mapped) < 8 * 2**20
    mapped.sum()
    assert resident(mapped) >= 60 * 2**20


def resident(mapped):
    """Bytes of a mapping that count as this process's memory."""
    inside, address = False, mapped.ctypes.data
    for line in Path("/proc/self/smaps").read_text().splitlines():
        head = line.split()[0]
        if "-" in head and ":" not in head:
            begin, end = (int(part, 16) for part in head.split("-"))
            inside = begin <= address < end
        elif inside and head == "Rss:":
            return int(line.split()[1]) * 1024
    raise AssertionError("not mapped")


def write_index(directory, weight_map, name="model.safetensors.index.json"):
    (directory / name).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))


def test_files_are_found_through_the_index(tmp_path):
    save_file({"a": TENSORS["odd"]}, tmp_path / "1.safetensors")
    save_file({"b": TENSORS["table"], "c": TENSORS["odd"]}, tmp_path / "2.safetensors")
    write_index(tmp_path, {"a": "1.safetensors", "b": "2.safetensors"})
    same(open_weights(tmp_path), {"a": TENSORS["odd"], "b": TENSORS["table"]})
    write_index(tmp_path, {"a": "1.safetensors", "d": "2.safetensors"})
    with pytest.raises(UserError, match=r"says that d is in 2.safetensors; it is not"):
        open_weights(tmp_path)
    write_index(tmp_path, {"a": "3.safetensors", "b": "2.safetensors", "c": "4.safetensors"})
    with pytest.raises(UserError, match=r"3.safetensors is missing and 1 more; model.safetensors"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    "text", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": []}}']
)
def test_an_index_that_is_none(tmp_path, text):
    (tmp_path / "model.safetensors.index.json").write_text(text)
    with pytest.raises(UserError, match=r"index.json is not an index of weights"):
        open_weights(tmp_path)


@pytest.mark.parametrize("length", [0, 7, 60, -1])
def test_a_file_that_was_cut_is_named(tmp_path, length):
    path = tmp_path / "model.safetensors"
    save_file(TENSORS, path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(UserError, match=r"model.safetensors is damaged or incomplete"):
        open_weights(tmp_path)


def test_a_directory_without_weights(tmp_path):
    with pytest.raises(
        UserError, match=r"holds no weights: none of .*pytorch_model.bin.index.json"
    ):
        open_weights(tmp_path)


def test_bin_without_torch_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=r"needs torch .* pip install -e .*interop.*'"):
        open_weights(tmp_path)


@pytest.mark.parametrize("mapped", [True, False])
def test_bin_through_torch(tmp_path, mapped):
    torch = pytest.importorskip("torch")
    tensors = {
        "odd": torch.arange(3, dtype=torch.float16),
        "table": torch.arange(12, dtype=torch.float32).reshape(4, 3) / 7,
        "short": torch.arange(10, dtype=torch.bfloat16).reshape(5, 2),
        "turned": torch.arange(12, dtype=torch.float32).reshape(4, 3).T,
        "trained": torch.nn.Parameter(torch.ones(3)),
    }
    expected = {
        **TENSORS,
        "turned": np.arange(12, dtype=np.float32).reshape(4, 3).T,
        "trained": np.ones(3, np.float32),
    }
    path = tmp_path / "pytorch_model.bin"
    torch.save(tensors, path, _use_new_zipfile_serialization=mapped)
    same(open_weights(tmp_path), expected)
    path.rename(tmp_path / "part.bin")
    write_index(tmp_path, {"odd": "part.bin"}, "pytorch_model.bin.index.json")
    same(open_weights(tmp_path), {"odd": expected["odd"]})


def test_safetensors_go_before_bin(tmp_path):
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "pytorch_model.bin").write_bytes(b"not read")
    same(open_weights(tmp_path), TENSORS)


class Harm:
    def __reduce__(self):
        return print, ("harm",)


def test_bin_that_is_no_plain_weights(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    path = tmp_path / "pytorch_model.bin"
    torch.save({"a": torch.ones(3), "b": Harm()}, path)
    with pytest.raises(UserError, match="holds more than weights"):
        open_weights(tmp_path)
    assert capsys.readouterr().out == ""
    torch.save([torch.ones(3)], path)
    with pytest.raises(UserError, match="holds a list, not a dict"):
        open_weights(tmp_path)
    torch.save({"a": torch.ones(3000)}, path)
    whole = path.read_bytes()
    for length in (0, 20, -100):
        path.write_bytes(whole[:length])
        with pytest.raises(UserError, match=r"pytorch_model.bin .*damaged"):
            open_weights(tmp_path)


@pytest.mark.parametrize(
    "name",
    ["../a.safetensors", "/etc/passwd", "b/../../a", "..", ".", "", 3, None, True, ["a"], "a\0b"],
)
def test_an_index_names_files_of_its_own_directory(tmp_path, name):
    directory = tmp_path / "model"
    directory.mkdir()
    save_file({"a": TENSORS["odd"]}, tmp_path / "a.safetensors")
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(UserError, match=r"index.json is not an index of weights: .* own dir") as e:
        open_weights(directory)
    assert "\n" not in str(e.value)


def test_an_index_that_is_too_deep(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"is not an index of weights: .*nested deeper than 100"):
        open_weights(tmp_path)


def header(path, about, data=64, length=None):
    text = (about if isinstance(about, str) else json.dumps(about)).encode()
    size = len(text) if length is None else length
    path.write_bytes(struct.pack("<Q", size) + text + bytes(data))


FLOATS = {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}


@pytest.mark.parametrize(
    ("about", "length"),
    [
        ("{}", 2**62),
        ("{}", 90 * 2**20),
        ("[" * 100_000, None),
        ({"a": {**FLOATS, "shape": [4], "data_offsets": [0, 16]}, "b": FLOATS}, None),
        ({"a": {**FLOATS, "shape": [400], "data_offsets": [0, 1600]}}, None),
        ({"a": {**FLOATS, "shape": [-16]}}, None),
        ({"a": {**FLOATS, "shape": [8]}}, None),
        ({"a": {**FLOATS, "dtype": "F33"}}, None),
        ({"a": {**FLOATS, "data_offsets": [64, 0]}}, None),
        ({"a": 3}, None),
        ({"__metadata__": 3, "a": FLOATS}, None),
        ("", None),
    ],
)
def test_headers_that_lie(tmp_path, about, length):
    header(tmp_path / "model.safetensors", about, length=length)
    with pytest.raises(UserError, match=r"model.safetensors is damaged or incomplete") as caught:
        open_weights(tmp_path)
    assert "\n" not in str(caught.value)
