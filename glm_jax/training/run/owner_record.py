"""What the owner of a workdir writes of itself, and how the next one reads it."""

import contextlib
import json
import os
import socket
import time
from pathlib import Path

from glm_jax.buckets import BucketPath
from glm_jax.errors import UserError

BEAT = 5.0  # seconds from one change of the record to the next


def about_this_process() -> dict[str, object]:
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    return {"host": socket.gethostname(), "pid": os.getpid(), "since": since}


def content_of(about: dict[str, object], beat: int) -> bytes:
    return json.dumps(about | {"beat": beat}).encode() + b"\n"


def parsed(content: bytes | str) -> dict[str, object]:
    """The record in the content of the file; {} if it has none."""
    with contextlib.suppress(ValueError):
        found = json.loads(content)
        if isinstance(found, dict):
            return found
    return {}


def say_watching(path: object, left: dict[str, object], seconds: float) -> None:
    print(
        f"{path} was left by process {left.get('pid')} on host {left.get('host')}; "
        f"looking for {seconds:.0f} s whether it still runs ...",
        flush=True,
    )


def in_use(path: Path | BucketPath, record: dict[str, object]) -> UserError:
    who = "another process"
    if record:
        who = f"process {record.get('pid')} on host {record.get('host')}"
        who += f" since {record.get('since')}"
    return UserError(
        f"the workdir {str(path.parent)!r} is in use by {who}; wait for it, end it, or use another "
        "workdir"
    )
