"""Processes of a run meet before the network starts, so that who is missing can be named.

    process 0  listens   <- {"process": 1, "host": "b", "about": {"jax": "0.10.2", ..}}   process 1
                         <- {"process": 2, ..}                                            process 2
               all are there and alike     -> {"go": true}       to all
               one is missing, or differs  -> {"error": "..."}   to all

jax's own start waits in C++, names nobody, and ends the process without a word of Python when its
time is up. The meeting uses the coordinator's port, which is free again before jax takes it.
"""

import dataclasses
import json
import selectors
import socket
import time
from collections.abc import Callable, Mapping

from glm_jax.errors import UserError

Say = Callable[[str], None]

# Seconds until who is missing is named, and between two such lines.
PATIENCE = 60.0
# Clocks that are further apart are a fault: rows of metrics and checkpoints would be out of order.
MOST_APART = 300.0
_RETRY = 0.5
_GRACE = 15.0


@dataclasses.dataclass(frozen=True)
class Guest:
    """A process that has come.

    Attributes:
      process: its index.
      host: its name.
      about: what must be the same on all processes, by name.
      clock: seconds since 1970 there, when it came.
      arrived: seconds since 1970 here.
    """

    process: int
    host: str
    about: Mapping[str, str]
    clock: float
    arrived: float

    def __str__(self) -> str:
        return f"process {self.process} ({self.host})"


def meet(
    address: str,
    num_processes: int,
    process: int,
    about: Mapping[str, str],
    *,
    timeout: float,
    say: Say,
) -> None:
    """Returns when all processes have come and are alike.

    Args:
      address: HOST:PORT of process 0, where it listens.
      num_processes, process: how many there are, and which one this is.
      about: what must be the same on all, by name, such as versions and the config's hash.
      timeout: seconds that the last process may take to come.
      say: takes lines for the person who waits.

    Raises:
      UserError: on every process that has come: who is missing, came twice or differs, and in what.
    """
    guest = Guest(process, socket.gethostname(), about, time.time(), time.time())
    if process == 0:
        _host(address, num_processes, guest, time.monotonic() + timeout, say)
    else:
        # Process 0 knows who is missing, and gives up first.
        _visit(address, guest, time.monotonic() + timeout + _GRACE, say)


def difference(guests: Mapping[int, Guest]) -> str | None:
    """What is not the same on all processes, as a sentence that names process and values; or None.

    Args:
      guests: by process, process 0 among them.
    """
    first = guests[0]
    for guest in guests.values():
        for name in sorted({*first.about, *guest.about}):
            here, there = first.about.get(name), guest.about.get(name)
            if here != there:
                return f"{name} is {there} on {guest} and {here} on {first}; they must be the same"
        apart = (guest.clock - guest.arrived) - (first.clock - first.arrived)
        if abs(apart) > MOST_APART:
            way = "ahead of" if apart > 0 else "behind"
            return (
                f"the clock of {guest} is {abs(apart):.0f} s {way} that of {first}; set it right "
                "(chrony or ntpd)"
            )
    return None


def _host(address: str, num_processes: int, first: Guest, end: float, say: Say) -> None:
    guests = {0: first}
    heard: dict[socket.socket, bytes] = {}
    said = time.monotonic()
    with _listening(address) as listener, selectors.DefaultSelector() as selector:
        selector.register(listener, selectors.EVENT_READ)
        try:
            while len(guests) < num_processes:
                for key, _ in selector.select(timeout=0.2):
                    connection = key.fileobj
                    assert isinstance(connection, socket.socket)
                    if connection is listener:
                        connection, _ = listener.accept()
                        heard[connection] = b""
                        selector.register(connection, selectors.EVENT_READ)
                    elif _hear(connection, heard):
                        selector.unregister(connection)
                        _welcome(_guest(heard[connection]), guests)
                now = time.monotonic()
                missing = [one for one in range(num_processes) if one not in guests]
                if missing and now > end:
                    raise UserError(f"{_named(missing, num_processes)} did not come to {address}")
                if missing and now - said > PATIENCE:
                    said = now
                    say(
                        f"waiting for {_named(missing, num_processes)} at {address}: does the same "
                        "command run there, with that address, and does a firewall let it through?"
                    )
        except UserError as error:
            _answer(heard, {"error": str(error)})
            raise
        _answer(heard, {"go": True})


def _hear(connection: socket.socket, heard: dict[socket.socket, bytes]) -> bool:
    """Takes some of what comes; returns whether that was all."""
    try:
        part = connection.recv(65536)
    except OSError:
        part = b""
    heard[connection] += part
    return not part or heard[connection].endswith(b"\n")


def _guest(said: bytes) -> Guest | None:
    """Who has come; None for what is no process of ours, such as a scan of ports."""
    try:
        values = json.loads(said)
        return Guest(
            values["process"], values["host"], values["about"], values["clock"], time.time()
        )
    except (ValueError, KeyError, TypeError):
        return None


def _welcome(guest: Guest | None, guests: dict[int, Guest]) -> None:
    if guest is None:
        return
    if guest.process in guests:
        raise UserError(
            f"process {guest.process} came twice, from {guests[guest.process].host} and "
            f"{guest.host}; each needs a --process_id of its own"
        )
    guests[guest.process] = guest
    # At once: a process that counts others would be waited for in vain.
    if (found := difference(guests)) is not None:
        raise UserError(found)


def _answer(connections: Mapping[socket.socket, bytes], answer: Mapping[str, object]) -> None:
    """Tells all, and waits a moment for each to hang up, so that the port is free at once."""
    for connection in connections:
        try:
            connection.sendall(json.dumps(answer).encode() + b"\n")
            connection.settimeout(2)
            connection.recv(1)
        except OSError:
            pass
        connection.close()


def _visit(address: str, guest: Guest, end: float, say: Say) -> None:
    said = time.monotonic()
    host, port = _split(address)
    words = {"process": guest.process, "host": guest.host, "about": dict(guest.about)}
    while True:
        try:
            with socket.create_connection((host, port), timeout=10) as connection:
                connection.settimeout(max(1.0, end - time.monotonic()))
                said_now = {**words, "clock": time.time()}
                connection.sendall(json.dumps(said_now).encode() + b"\n")
                answer = connection.makefile("r", encoding="utf-8").readline()
        except TimeoutError:
            answer = ""
        except OSError:
            answer = None
        if answer:
            found = json.loads(answer)
            if "error" in found:
                raise UserError(f"process 0 says: {found['error']}")
            return
        now = time.monotonic()
        if now > end:
            raise UserError(f"process 0 is not at {address}; does the same command run there?")
        if now - said > PATIENCE:
            said = now
            say(f"process {guest.process} waits for process 0 at {address}")
        time.sleep(_RETRY)


def _listening(address: str) -> socket.socket:
    _, port = _split(address)
    try:
        return socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise UserError(
            f"process 0 cannot listen at {address}: {error.strerror}; is another process 0 there, "
            "or another run?"
        ) from error


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _named(processes: list[int], num_processes: int) -> str:
    """`processes 1, 3 and 12 others of 16`."""
    shown = ", ".join(map(str, processes[:8]))
    more = f" and {len(processes) - 8} others" if len(processes) > 8 else ""
    word = "process" if len(processes) == 1 else "processes"
    return f"{word} {shown}{more} of {num_processes}"
