"""A `Decoder` for tests of routes: one row after the other, each step on a thread of its own."""

import dataclasses
import queue
import threading
import time
from concurrent.futures import Future

import jax
import numpy as np

from glm_jax.models.params import bind
from glm_jax.serving.asking import Chosen, Counts, Ended, Scored


class SmallTicket:
    def __init__(self):
        self.cancelled = False

    def cancel(self):
        self.cancelled = True


class SmallDecoder:
    """Attributes:
    asked: all rows that were submitted; tickets: theirs.
    pause: seconds before each step.
    refuse: raised by the next `submit` or `call`, once.
    """

    def __init__(self, lm, context=None):
        self.lm, self.context = lm, context or lm.config.max_positions
        self.asked, self.tickets, self.pause, self.refuse = [], [], 0.0, None
        self.state = "ready"
        self._queue = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def submit(self, asks, on_event):
        self._refuse()
        tickets = [SmallTicket() for _ in asks]
        self.asked += asks
        self.tickets += tickets
        for index, (ask, ticket) in enumerate(zip(asks, tickets, strict=True)):
            told = lambda event, index=index: on_event(index, event)  # noqa: E731
            self._queue.put(lambda a=ask, t=ticket, told=told: self._decode(a, t, told))
        return tickets

    def call(self, work, client=""):
        self._refuse()
        future = Future()

        def run():
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except BaseException as error:
                    future.set_exception(error)

        self._queue.put(run)
        return future

    def counts(self):
        return Counts(self.state, 1, 0, 0, 0, 0, 0, 0, {})

    def close(self):
        self._queue.put(None)
        self._thread.join()

    def _refuse(self):
        if self.refuse is not None:
            error, self.refuse = self.refuse, None
            raise error

    def _serve(self):
        while (work := self._queue.get()) is not None:
            work()

    def _decode(self, ask, ticket, told):
        engine, limits = self.lm._engine(), ask.prompt.limits
        how = dataclasses.replace(ask.prompt.how, seed=ask.prompt.how.seed + ask.copy)
        slots = engine.start([dataclasses.replace(ask.prompt, how=how)])
        reason = "length"
        while bool(slots.running[0]):
            time.sleep(self.pause)
            if ticket.cancelled:
                return told(Ended("cancelled"))
            logits = _logits(engine.config, engine.params, slots)
            answer, count = int(slots.index[0]), int(slots.count[0])
            slots = engine.run(slots, 1)
            id_ = int(slots.chosen[0, count])
            ends = id_ in limits.end_ids
            reason = "end" if ends else "length"
            told(Chosen(id_, answer, ends, _scored(logits, id_, ask.alternatives)))
        told(Ended(reason))


def _logits(config, params, slots):
    return np.asarray(_program(config)(params, slots))


_PROGRAMS = {}


def _program(config):
    if config not in _PROGRAMS:
        _PROGRAMS[config] = jax.jit(
            lambda params, slots: jax.nn.log_softmax(slots.feed(bind(config, params))[0][0])
        )
    return _PROGRAMS[config]


def _scored(logs, id_, alternatives):
    if alternatives is None:
        return None
    best = np.argsort(-logs)[:alternatives]
    return Scored(id_, float(logs[id_]), tuple((int(one), float(logs[one])) for one in best))
