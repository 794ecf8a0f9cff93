"""The file that says which model an adapter was trained over."""

import json

import pytest

from glm_jax.errors import UserError
from glm_jax.interop.recorded_base import RecordedBase, read_base, write_base


def test_what_is_written_is_read(tmp_path):
    assert read_base(tmp_path) is None
    base = RecordedBase("chatglm3-6b", {"final_norm/scale": ["float:1", "int8:2"]})
    write_base(tmp_path, base)
    assert read_base(tmp_path) == base


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"name": 1, "fingerprint": {}},
        {"name": "a", "fingerprint": {"b": "c"}},
        {"name": "a", "fingerprint": {"b": []}},
        {"name": "a", "fingerprint": {"b": [1]}},
    ],
)
def test_a_file_of_another_kind(values, tmp_path):
    (tmp_path / "base.json").write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"base.json must hold the name and the fingerprint"):
        read_base(tmp_path)
