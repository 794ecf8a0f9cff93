"""What the owner of a workdir writes of itself."""

import os
import socket
from pathlib import Path

import pytest

from glm_jax.buckets import BucketPath
from glm_jax.training.run.owner_record import about_this_process, content_of, in_use, parsed


def test_a_record_comes_back():
    about = about_this_process()
    assert (about["host"], about["pid"]) == (socket.gethostname(), os.getpid())
    assert parsed(content_of(about, 3)) == about | {"beat": 3}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", "null"])
def test_what_is_no_record_says_nothing(content):
    assert parsed(content) == {}


@pytest.mark.parametrize("workdir", [Path("runs/one"), BucketPath("gs://b/one")])
def test_the_sentence_names_workdir_process_and_host(workdir):
    said = str(in_use(workdir / ".owner", {"host": "pod-3", "pid": 47, "since": "noon"}))
    assert said.startswith(f"the workdir '{workdir}' is in use by process 47 on host pod-3 since n")
    assert "in use by another process;" in str(in_use(workdir / ".owner", {}))
