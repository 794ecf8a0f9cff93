"""The fixtures of a tiny run, see `tests/tiny_run.py`."""

from tests.checkpoints.saved import mesh, state  # noqa: F401
from tests.tiny_run import (  # noqa: F401
    _compile_once,
    batch,
    change,
    config,
    open_batches,
    stream,
    tokenizer,
)
