"""A scheduler without a model, a chat format of bytes, and a server in a thread: for tests of HTTP.

`FakeDecoder` does what the border (`glm_jax.serving.asking`) promises, with ids from a script or,
row by row, of a model (`tests.serving.small_models.decoder_of`).
"""

import collections
import contextlib
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future

import openai

from glm_jax.config import ModelConfig
from glm_jax.interop.origin import Origin
from glm_jax.serving.app import make_app
from glm_jax.serving.asking import (
    Chosen,
    ClosingError,
    Counts,
    Echoed,
    Ended,
    FullError,
    Scored,
)
from glm_jax.serving.served import RequestLimits, Served
from glm_jax.serving.server import Server, listen, url
from glm_jax.tokenizers.answers import read_turn
from glm_jax.tokenizers.calls import JSON_CALLS
from tests.generation.chat_stand_ins import BOT, VOCABULARY, ByteChat
from tests.generation.chat_stand_ins import USER as USER_ID

__all__ = ["BOT", "USER_ID"]
ASSISTANT = "<|assistant|>"


class Bytes(ByteChat):
    """Bytes are ids; answers are read as GLM-4's are."""

    kind, chat_fingerprint = "bytes", "bytes"

    def decode(self, ids, skip_special=False):
        parts = bytes(0) if skip_special else ASSISTANT.encode()
        text = b"".join(bytes([one]) if one < 256 else parts if one == BOT else b"" for one in ids)
        return text.decode(errors="replace")

    def apply_chat_template(self, messages, tools=None, **others):
        return super().apply_chat_template(
            [{**one, "content": one.get("content") or ""} for one in messages]
        )

    def read_answer(self, ids, tools=None):
        text = ids if isinstance(ids, str) else self.decode(ids)
        return read_turn(text.split(ASSISTANT), JSON_CALLS, bool(tools))


class FakeModel:
    """What the routes ask of a model: its config, its tokenizer, its special ids."""

    def __init__(self, max_positions=4096, generation=None, **config):
        config = {"position_encoding": "rotary", **config}
        self.config = ModelConfig(vocab_size=VOCABULARY, max_positions=max_positions, **config)
        self.tokenizer, self.special = Bytes(), Bytes.special
        self._origin = Origin(generation=generation or {})
        self.chat_end_ids = list(Bytes.chat_end_ids)


class Row:
    """A row of `FakeDecoder`, and its ticket."""

    def __init__(self, ask, tell, says):
        self.ask, self.tell, self.says, self.count = ask, tell, says, 0
        self.cancelled = self.ended = False
        self.began = None

    def cancel(self):
        self.cancelled = True


def script(ask, said):
    """(event, how the row ends with it) of each id that is said; an end id follows them."""
    limits = ask.prompt.limits
    for count, id_ in enumerate([*said, *limits.end_ids[:1]], 1):
        if id_ == "fail":
            yield None, "failed"
        ends = id_ in limits.end_ids
        last = ends or count == limits.max_new_tokens
        event = Chosen(id_, ends=ends, scored=scored(ask, id_))
        yield event, ("end" if ends else "length") if last else None
    yield None, "length"


def scored(ask, id_):
    """-id/1000, and of other ids "a", "b", .., which are the most probable."""
    if ask.alternatives is None:
        return None
    others = tuple((other, -other / 1000) for other in range(97, 97 + ask.alternatives))
    return Scored(id_, -id_ / 1000, others)


class FakeDecoder:
    """Decodes what it is told to say, an id a step of each row.

    Attributes:
      asked, tickets: of all rows that were submitted.
      delay: seconds of a step.
      refuse: raised by the next `submit` or `call`, once.
    """

    def __init__(self, say, delay=0.0, slots=8, queue=64, context=4096):
        """Args:
        say: Ask -> text, bytes or ids, or the iterator that `script` makes of them. May raise.
        """
        self.context, self.asked, self.tickets, self.state = context, [], [], "ready"
        self.delay, self.refuse = delay, None
        self._say, self._slots, self._queue = say, slots, queue
        self._rows, self._lock, self._steps = [], threading.Condition(), 0
        self._calls = collections.deque()
        self._closed, self._ended = False, collections.Counter()
        self._tokens = collections.Counter()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def submit(self, asks, on_event):
        self._refuse()
        with self._lock:
            if self.state == "draining":
                raise ClosingError
            if len(self._rows) + len(asks) > self._slots + self._queue:
                raise FullError(2.0)
            found = []
            for index, ask in enumerate(asks):
                said = self._say(ask)
                said = said.encode() if isinstance(said, str) else said
                says = said if isinstance(said, Iterator) else script(ask, said)
                found.append(Row(ask, lambda event, index=index: on_event(index, event), says))
                self._tokens["prompt"] += len(ask.prompt.ids)
            self._rows += found
            self.asked += asks
            self.tickets += found
            self._lock.notify()
        return found

    def call(self, work, client=""):
        self._refuse()
        future = Future()
        with self._lock:
            self._calls.append((work, future))
            self._lock.notify()
        return future

    def _refuse(self):
        error, self.refuse = self.refuse, None
        if error is not None:
            raise error

    def counts(self):
        busy = min(len(self._rows), self._slots)
        return Counts(
            self.state,
            self._slots,
            busy,
            len(self._rows) - busy,
            self._tokens["prompt"],
            0,
            self._tokens["made"],
            self._steps,
            dict(self._ended),
        )

    def drain(self, seconds):
        self.state = "draining"
        until = time.monotonic() + seconds
        while self._rows and time.monotonic() < until:
            time.sleep(0.01)
        return not self._rows

    def close(self):
        self._closed = True
        with self._lock:
            self._lock.notify()
        self._thread.join()
        for _, future in self._calls:
            future.cancel()
        for row in self._rows:
            self._end(row, "cancelled")
        self._rows = []

    def _run(self):
        while not self._closed:
            with self._lock:
                self._lock.wait_for(lambda: self._rows or self._calls or self._closed)
                rows = self._rows[: self._slots]
                waiting = self._rows[self._slots :]
            while self._calls:
                self._work(*self._calls.popleft())
            for row in waiting:
                if row.cancelled:
                    self._end(row, "cancelled")
            for row in rows:
                self._step(row)
            self._steps += 1
            with self._lock:
                self._rows = [row for row in self._rows if not row.ended]
            if self.delay:
                time.sleep(self.delay)

    def _work(self, work, future):
        if future.set_running_or_notify_cancel():
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)

    def _step(self, row):
        ask = row.ask
        if row.cancelled:
            return self._end(row, "cancelled")
        if ask.deadline is not None and time.monotonic() > ask.deadline:
            return self._end(row, "deadline")
        if row.count == 0 and ask.echo:
            row.tell(Echoed(tuple(scored(ask, id_) for id_ in ask.prompt.ids[1:])))
        event, reason = next(row.says)
        if event is not None:
            row.count += 1
            self._tokens["made"] += 1
            row.tell(event)
        return reason and self._end(row, reason)

    def _end(self, row, reason):
        row.ended = True
        self._ended[reason] += 1
        row.tell(Ended(reason, reused=2))


def say(text):
    """A script that says the same whatever it is asked."""
    return lambda ask: text


@contextlib.contextmanager
def served(decoder, model=None, name="m", limits=None, server_class=Server, **options):
    """Serves in a thread; gives the address of the server."""
    what = Served(model or FakeModel(), decoder, name, limits or RequestLimits())
    server = server_class(make_app(what, **options), decoder, drain_seconds=5)
    listening = listen("127.0.0.1", 0)
    address = url(listening)
    thread = threading.Thread(target=server.run_on, args=(listening,), daemon=True)
    thread.start()
    try:
        yield address
    finally:
        server.should_exit = True
        thread.join(10)
        decoder.close()


def client(address, key="none", **options):
    """The official client."""
    return openai.OpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0, **options)


def until(condition, seconds=5.0):
    """Waits for a condition; whether it came."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.005)
    return True
