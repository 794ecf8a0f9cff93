"""A port of this machine for processes of a test that meet."""

import socket


def free_port() -> int:
    """A port that nothing listens at; another process might take it before the test does."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]
