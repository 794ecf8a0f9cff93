"""Processes meet: threads of this process on ports of its own, each with a sentence of its own."""

import socket
import threading
import time

import pytest

from glm_jax.errors import UserError
from glm_jax.training import meeting
from glm_jax.training.meeting import Guest, difference, meet
from tests.free_port import free_port


def together(guests, num_processes, timeout=20.0, address=None):
    """What each guest, (process, about), ends with: None, or its error; and what was said."""
    address = address or f"127.0.0.1:{free_port()}"
    ended, said = [None] * len(guests), []

    def run(index, process, about):
        try:
            meet(address, num_processes, process, about, timeout=timeout, say=said.append)
        except UserError as error:
            ended[index] = str(error)

    threads = [
        threading.Thread(target=run, args=(index, *guest)) for index, guest in enumerate(guests)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return ended, said


def test_all_come_in_any_order_and_the_port_is_free_again():
    address = f"127.0.0.1:{free_port()}"
    same = {"jax": "0.10.2"}
    for _ in range(2):
        assert together([(2, same), (0, same), (1, same)], 3, address=address) == ([None] * 3, [])


def test_who_is_missing_is_named(monkeypatch):
    # Process 2 may knock before process 0 listens, and then comes at its next try.
    monkeypatch.setattr(meeting, "_RETRY", 0.05)
    monkeypatch.setattr(meeting, "PATIENCE", 0.3)
    ended, said = together([(0, {}), (2, {})], 4, timeout=3.0)
    assert "processes 1, 3 of 4 did not come to 127.0.0.1:" in ended[0]
    assert ended[1] == f"process 0 says: {ended[0]}"
    assert said[-1].startswith("waiting for processes 1, 3 of 4 at 127.0.0.1:")
    assert len(said) >= 3


def test_without_process_0_the_others_say_so(monkeypatch):
    monkeypatch.setattr(meeting, "PATIENCE", 0.3)
    monkeypatch.setattr(meeting, "_GRACE", 0.1)
    ended, said = together([(1, {})], 2, timeout=1.5)
    assert ended[0].startswith("process 0 is not at 127.0.0.1:")
    assert said[0].startswith("process 1 waits for process 0 at 127.0.0.1:")


def test_what_differs_is_named_with_its_process_on_all():
    ended, _ = together([(0, {"the config": "a1"}), (1, {"the config": "b2"})], 2)
    host = socket.gethostname()
    assert ended[0] == (
        f"the config is b2 on process 1 ({host}) and a1 on process 0 ({host}); they must be the "
        "same"
    )
    assert ended[1] == f"process 0 says: {ended[0]}"


def test_the_same_process_twice():
    ended, _ = together([(0, {}), (1, {}), (1, {})], 3)
    assert all("process 1 came twice, from" in error for error in ended)


def test_who_is_no_process_is_not_waited_for():
    address = f"127.0.0.1:{free_port()}"
    ended = []

    def host():
        meet(address, 2, 0, {}, timeout=20, say=print)
        ended.append(True)

    thread = threading.Thread(target=host)
    thread.start()
    for said in (b"GET / HTTP/1.1\r\n\r\n\n", b""):
        for _ in range(100):
            try:
                with socket.create_connection(("127.0.0.1", int(address.split(":")[1]))) as scan:
                    scan.sendall(said)
                break
            except OSError:
                time.sleep(0.05)
    meet(address, 2, 1, {}, timeout=20, say=print)
    thread.join(20)
    assert ended == [True]


def test_a_port_that_is_taken():
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        said = f"process 0 cannot listen at localhost:{port}: .*; is another process 0 there"
        with pytest.raises(UserError, match=said):
            meet(f"localhost:{port}", 2, 0, {}, timeout=1, say=print)


def test_clocks_that_are_far_apart():
    first = Guest(0, "a", {}, 1000.0, 1000.0)
    near, far = Guest(1, "b", {}, 1240.0, 1010.0), Guest(2, "c", {}, 4610.0, 1010.0)
    assert difference({0: first, 1: near}) is None
    assert difference({0: first, 1: near, 2: far}) == (
        "the clock of process 2 (c) is 3600 s ahead of that of process 0 (a); set it right (chrony "
        "or ntpd)"
    )
    late = Guest(1, "b", {}, 10.0, 1010.0)
    assert "is 1000 s behind that of process 0" in difference({0: first, 1: late})
