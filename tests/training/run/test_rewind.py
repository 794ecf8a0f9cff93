import json

import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.training.run.rewind import (
    Rewind,
    SkippingStream,
    check_rewind,
    go_back,
    merged,
    move_later,
    read_skips,
    write_skips,
)


def test_spans_are_merged():
    assert merged([(400, 450), (430, 460), (10, 10)]) == [(400, 460)]
    assert merged([(5, 6), (1, 2), (2, 3)]) == [(1, 3), (5, 6)]


def numbers(stream, count):
    """The numbers of the batches that come next: the state of a stream is that of the next."""
    found = []
    for _ in range(count):
        next(stream)
        found.append(int(stream.get_state()) - 1)
    return found


def test_a_stream_without_spans_of_its_batches(stream):
    skipping = SkippingStream(stream(), [(2, 4), (5, 6)])
    assert numbers(skipping, 5) == [0, 1, 4, 6, 7]
    plain = stream()
    plain.set_state(b"4")
    skipping.set_state(b"2")
    np.testing.assert_array_equal(next(skipping).tokens, next(plain).tokens)
    for state in (b"2", b"3", b"4"):  # anywhere in the span: after a kill, the same batches
        skipping.set_state(state)
        assert numbers(skipping, 2) == [4, 6]
    assert numbers(skipping.without([]), 1) == [7]


def test_skips_are_recorded(tmp_path):
    assert read_skips(tmp_path) == []
    write_skips(tmp_path, [(4, 6), (9, 12)])
    assert read_skips(tmp_path) == [(4, 6), (9, 12)]
    odd = ("[[4]]", "{", '[["a", 2]]', "[7]", "[[5, 4]]", "[[4.5, 6]]", "[[true, 6]]", "[[-1, 4]]")
    for content in (*odd, "[[1, 1099511627777]]", '[["4", "6"]]', "NaN", "{}"):
        (tmp_path / "skipped.json").write_text(content)
        with pytest.raises(UserError, match=r"must be a list of pairs"):
            read_skips(tmp_path)


@pytest.fixture
def workdir(tmp_path):
    for step in (2, 4, 6):
        (tmp_path / "checkpoints" / str(step)).mkdir(parents=True)
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 6}) + "\n")
    return tmp_path


def test_later_steps_are_moved_and_never_over_one_another(workdir):
    assert move_later(workdir, 6) is None
    assert move_later(workdir, 2) == workdir / "rewound" / "1"
    (workdir / "checkpoints" / "4").mkdir()
    assert move_later(workdir, 2) == workdir / "rewound" / "2"
    assert [p.name for p in (workdir / "checkpoints").iterdir()] == ["2"]
    kept = workdir / "rewound" / "1"
    assert sorted(p.name for p in (kept / "checkpoints").iterdir()) == ["4", "6"]
    assert (kept / "metrics.jsonl").read_bytes() == (workdir / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("rewind", "said"),
    [(Rewind(3), r"no checkpoint of step 3 .*there are \[2, 4, 6\]"), (Rewind(2, -1), "got -1")],
)
def test_what_cannot_be_gone_back_to(workdir, rewind, said):
    check_rewind(workdir, None)
    check_rewind(workdir, Rewind(4, 7))
    with pytest.raises(UserError, match=said):
        check_rewind(workdir, rewind)
    with pytest.raises(UserError, match="there is none at all"):
        check_rewind(workdir / "other", Rewind(2))


def test_going_back_leaves_batches_out_for_good(workdir, stream):
    skipping = SkippingStream(stream(), [])
    skipping.set_state(b"2")
    again, said = go_back(workdir, skipping, Rewind(2, skip_batches=3))
    assert said == f", without batches 2 to 4; what came after is in {workdir / 'rewound' / '1'}"
    assert read_skips(workdir) == [(2, 5)]
    assert numbers(again, 2) == [5, 6]
    assert go_back(workdir, again, Rewind(2)) == (again, "")
    again.set_state(str(1 << 40).encode())
    with pytest.raises(UserError, match="must ascend"):
        go_back(workdir, again, Rewind(2, skip_batches=1))
