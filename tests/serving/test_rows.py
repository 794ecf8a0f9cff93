import asyncio
import threading

import pytest

from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.sampling import Sampling
from glm_jax.serving.asking import Ask, Chosen, Ended, FullError
from glm_jax.serving.rows import Rows
from tests.serving.fakes import FakeDecoder, say, until

EOS = 1000


def ask(most=100):
    return Ask(Prompt([1], Limits([EOS], most), Sampling()))


async def all_of(rows):
    return [one async for events in rows.events() for one in events]


def test_events_of_all_rows_come_in_their_order():
    decoder = FakeDecoder(say([5, 6]))

    async def main():
        async with Rows(decoder, [ask(), ask(1)]) as rows:
            return await all_of(rows)

    found = asyncio.run(main())
    assert [event for index, event in found if index == 0] == [
        Chosen(5),
        Chosen(6),
        Chosen(EOS, ends=True),
        Ended("end", reused=2),
    ]
    assert [event for index, event in found if index == 1] == [Chosen(5), Ended("length", 2)]


def test_the_end_of_the_context_cancels_what_goes_on():
    decoder = FakeDecoder(say(range(10_000)), delay=0.001)

    async def main():
        async with Rows(decoder, [ask(10_000), ask(10_000)]) as rows:
            async for _ in rows.events():
                break

    asyncio.run(main())
    assert until(lambda: decoder.counts().busy == 0)
    assert decoder.counts().ended == {"cancelled": 2}


def test_one_row_is_cancelled_alone():
    decoder = FakeDecoder(say(range(200)), delay=0.001)

    async def main():
        async with Rows(decoder, [ask(200), ask(200)]) as rows:
            rows.cancel(1)
            return await all_of(rows)

    ends = {index: event.reason for index, event in asyncio.run(main()) if hasattr(event, "reason")}
    assert ends == {0: "length", 1: "cancelled"}


def test_no_row_at_all_has_no_events():
    async def main():
        return await all_of(Rows(FakeDecoder(say("")), []))

    assert asyncio.run(main()) == []


def test_a_full_queue_is_said_at_once():
    async def main():
        with pytest.raises(FullError):
            Rows(FakeDecoder(say(""), slots=1, queue=0), [ask(), ask()])

    asyncio.run(main())


class Bursts:
    """Tells many events from a thread of its own, and counts how often the loop is woken."""

    def submit(self, asks, on_event):
        def run():
            for id_ in range(5000):
                on_event(0, Chosen(id_))
            on_event(0, Ended("end"))

        threading.Thread(target=run).start()
        return [None]


def test_no_event_is_lost_in_a_burst():
    wakes = []

    async def main():
        rows = Rows(Bursts(), [ask()])
        loop = asyncio.get_running_loop()
        call = loop.call_soon_threadsafe
        loop.call_soon_threadsafe = lambda *args: wakes.append(call(*args))
        return [event async for events in rows.events() for _, event in events]

    found = asyncio.run(main())
    assert [event.id for event in found[:-1]] == list(range(5000))
    assert len(wakes) < 5000


def test_a_loop_that_has_ended_is_no_error_of_the_scheduler():
    rows = []

    class Late:
        def submit(self, asks, on_event):
            rows.append(on_event)
            return []

    async def main():
        Rows(Late(), [ask()])

    asyncio.run(main())
    rows[0](0, Ended("end"))
