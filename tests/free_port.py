"""A port of this machine for processes of a test that meet, and the options by which they do."""

import socket


def free_port() -> int:
    """A port that nothing listens at; another process might take it before the test does."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def joining(processes: int) -> list[list[str]]:
    """The options of each of so many processes of one command; none for a single one."""
    if processes == 1:
        return [[]]
    common = ["--coordinator", f"127.0.0.1:{free_port()}", "--num_processes", str(processes)]
    return [[*common, "--process_id", str(index)] for index in range(processes)]
