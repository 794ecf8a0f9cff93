"""Imports TensorFlow without its start-up messages."""

import contextlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator

# Messages of TensorFlow 2.21 and its plugins on every start; none of them needs an action.
_CHATTER = re.compile(
    rb"oneDNN|cudart_stub|failed call to cuInit|cpu_feature_guard|absl::InitializeLog|"
    rb"rebuild TensorFlow with|[Uu]nable to register cu|computation_placer|cuda_executor|TF-TRT|"
    rb"^\s*$"
)


@contextlib.contextmanager
def without_chatter() -> Iterator[None]:
    """Holds back standard error while the body runs, then passes on all but known messages.

    The lines come from C++ and go to the file descriptor, so `sys.stderr` cannot filter them. If
    the body raises, everything is passed on.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        saved = os.dup(2)
    except OSError:  # there is no standard error
        yield
        return
    if sys.stderr is not None:
        sys.stderr.flush()
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        failed = True
        try:
            yield
            failed = False
        finally:
            if sys.stderr is not None:
                sys.stderr.flush()
            os.dup2(saved, 2)
            os.close(saved)
            held.seek(0)
            for line in held:
                if failed or not _CHATTER.search(line):
                    os.write(2, line)
