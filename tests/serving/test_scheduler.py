"""Rows of many callers share steps: none is lost, crossed or held up, and each can leave."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.generation import running_batch
from glm_jax.generation.options import Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.running_batch import RunningBatch
from glm_jax.generation.sampling import Sampling
from glm_jax.serving import asking
from glm_jax.serving.asking import Ask, Chosen, ClosingError, Echoed, Ended, FullError
from glm_jax.serving.scheduler import Scheduler
from tests.quick_flags import with_quick_flags

LIMITS = Limits([3], 12)
LONG = Limits([], 60)
DRAWN = np.random.default_rng(0)


class Caller:
    """Submits rows, and holds what it is told of each."""

    def __init__(self, scheduler, *asks):
        self.events = [[] for _ in asks]
        self.done = [threading.Event() for _ in asks]
        self.tickets = scheduler.submit(asks, self.take)

    def take(self, index, event):
        self.events[index].append(event)
        if isinstance(event, Ended):
            self.done[index].set()

    def wait(self):
        assert all(done.wait(60) for done in self.done)
        return self

    def ids(self, index=0):
        return [event.id for event in self.events[index] if isinstance(event, Chosen)]

    def reasons(self):
        return [events[-1].reason for events in self.events]

    def wait_for_an_id(self):
        limit = time.monotonic() + 60
        while not self.ids() and time.monotonic() < limit:
            time.sleep(0.001)
        assert self.ids()


def some(count):
    return DRAWN.integers(4, 90, count).tolist()


def ask(length=5, limits=LIMITS, how=None, **options):
    return Ask(Prompt(some(length), limits, how or Sampling()), **options)


def until(true):
    limit = time.monotonic() + 60
    while not true() and time.monotonic() < limit:
        time.sleep(0.005)
    assert true()


@pytest.fixture(scope="module")
def scheduler(causal_lm):
    made = Scheduler(causal_lm, slots=4, context=128, queue=30, width=16)
    made.start()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def nothing_stays(request):
    """After each test all slots are free and nothing waits."""
    yield
    if "scheduler" in request.fixturenames:
        one = request.getfixturevalue("scheduler")
        until(lambda: one.counts().busy == one.counts().waiting == 0)


def test_rows_get_what_generate_gives(scheduler, causal_lm):
    asks = [ask(length) for length in (1, 3, 20, 40, 70, 2, 9)]
    caller = Caller(scheduler, *asks).wait()
    for index, one in enumerate(asks):
        (expected,) = causal_lm.generate([one.prompt.ids], 12, eos_ids=[3])
        ids = caller.ids(index)
        ended = caller.reasons()[index]
        assert (ids[:-1] if ended == "end" else ids) == expected
        assert ended == ("length" if len(expected) == 12 else "end")


def test_many_callers_at_once_lose_and_cross_nothing(scheduler):
    prompts = [ask(int(length), Limits([], 6)) for length in DRAWN.integers(1, 50, 12)]
    expected = [Caller(scheduler, one).wait().ids() for one in prompts]
    callers = []

    def call(seed):
        order = np.random.default_rng(seed).permutation(len(prompts))[:6]
        callers.append((order, Caller(scheduler, *[prompts[i] for i in order])))

    threads = [threading.Thread(target=call, args=(seed,)) for seed in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(callers) == 5
    for order, caller in callers:
        caller.wait()
        assert [caller.ids(i) for i in range(6)] == [expected[i] for i in order]


def test_a_cancelled_row_leaves_before_the_next_steps_and_the_others_go_on(scheduler):
    staying = Caller(scheduler, ask(limits=LONG))
    leaving = Caller(scheduler, ask(limits=LONG))
    leaving.wait_for_an_id()
    leaving.tickets[0].cancel()
    leaving.wait()
    assert leaving.reasons() == ["cancelled"]
    told = len(leaving.ids())
    staying.wait()
    assert len(leaving.ids()) == told < 60
    assert len(staying.ids()) == 60
    leaving.tickets[0].cancel()  # of one that has ended: nothing
    assert len(leaving.events[0]) == told + 1


def test_one_that_waits_or_is_read_can_be_cancelled_too(scheduler):
    busy = Caller(scheduler, *[ask(limits=LONG)] * 4)
    waiting = Caller(scheduler, ask(100), ask())
    for ticket in waiting.tickets:
        ticket.cancel()
    assert waiting.wait().reasons() == ["cancelled"] * 2
    assert waiting.ids() == []
    assert busy.wait().reasons() == ["length"] * 4


def test_a_late_row_ends_with_what_it_has(scheduler):
    past = Caller(scheduler, ask(deadline=time.monotonic() - 1)).wait()
    assert past.reasons() == ["deadline"]
    assert past.ids() == []


def test_more_rows_than_the_queue_holds_are_refused_all(scheduler):
    busy = Caller(scheduler, *[ask(limits=LONG)] * 25)
    with pytest.raises(FullError) as refused:
        Caller(scheduler, *[ask()] * 20)
    assert refused.value.retry_after >= 1
    assert busy.wait().reasons() == ["length"] * 25


def test_clients_take_turns(scheduler):
    many = Caller(scheduler, *[ask(limits=LONG, client="many")] * 12)
    one = Caller(scheduler, ask(client="one")).wait()
    assert not all(done.is_set() for done in many.done[6:])
    assert one.reasons()[0] in ("end", "length")
    many.wait()


def test_a_prompt_that_fits_no_slot_is_refused_and_nothing_is_queued(scheduler):
    with pytest.raises(UserError, match="do not fit the 128 of a row"):
        Caller(scheduler, ask(), ask(120))
    assert scheduler.counts().waiting == 0


def test_echoed_ids_have_their_log_probabilities(scheduler, causal_lm):
    one = ask(40, Limits([], 2), alternatives=2, echo=True)
    caller = Caller(scheduler, one).wait()
    echoed, *chosen, _ = caller.events[0]
    assert isinstance(echoed, Echoed)
    ids = [*one.prompt.ids, *caller.ids()]
    expected = causal_lm.token_log_probabilities(ids, prefix_ids=[])
    found = [*echoed.scores, *(event.scored for event in chosen)]
    assert [score.id for score in found] == ids[1:]
    np.testing.assert_allclose([one.log_probability for one in found], expected, atol=3e-6)
    for score in found[-2:]:
        # Greedy: the id chosen is the first alternative.
        assert score.alternatives[0] == (score.id, score.log_probability)
        assert len(score.alternatives) == 2


def test_an_echo_is_whole_though_the_prompt_is_known(scheduler):
    one = ask(40, Limits([], 1))
    first = Caller(scheduler, one).wait()
    again = Caller(scheduler, Ask(one.prompt, 0, True)).wait()
    assert len(again.events[0][0].scores) == 39
    assert first.ids() == again.ids()
    assert again.events[0][-1].reused == 0
    assert Caller(scheduler, one).wait().events[0][-1].reused == 32


def test_as_many_alternatives_are_computed_as_may_be_asked_for():
    assert asking.MOST_ALTERNATIVES == running_batch.MOST_ALTERNATIVES


def test_no_alternatives_asked_none_told(scheduler):
    caller = Caller(scheduler, ask(alternatives=0), ask()).wait()
    assert caller.events[0][0].scored.alternatives == ()
    assert caller.events[1][0].scored is None


def test_other_work_runs_between_steps_on_the_same_thread(scheduler):
    busy = Caller(scheduler, ask(limits=LONG))
    assert scheduler.call(lambda: threading.current_thread().name).result(60) == "scheduler"
    with pytest.raises(ZeroDivisionError):
        scheduler.call(lambda: 1 // 0).result(60)
    assert busy.wait().reasons() == ["length"]


def test_a_listener_that_fails_loses_its_row_alone(scheduler):
    other = Caller(scheduler, ask(limits=LONG))

    def fail(index, event):
        raise RuntimeError("gone")

    scheduler.submit([ask(limits=LONG)], fail)
    assert other.wait().reasons() == ["length"]


def test_rows_of_a_step_that_fails_end_and_later_ones_are_served(scheduler, monkeypatch):
    one = ask(limits=LONG)
    expected = Caller(scheduler, one).wait().ids()
    step, calls = RunningBatch.step, []

    def fails_once(self):
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("no memory")
        return step(self)

    monkeypatch.setattr(RunningBatch, "step", fails_once)
    assert Caller(scheduler, one, one).wait().reasons() == ["failed"] * 2
    assert Caller(scheduler, one).wait().ids() == expected


@pytest.mark.parametrize("what", ["begin", "read", "enter"])
def test_a_prompt_that_cannot_be_read_ends_alone(scheduler, monkeypatch, what):
    bad, good = ask(40), ask(40, LONG)
    expected = Caller(scheduler, good).wait().ids()
    works, prompts = getattr(RunningBatch, what), []

    def fails(self, of, *others, **options):
        prompts.append(of if what == "begin" else of.prompt)
        if prompts[-1] is bad.prompt:
            raise RuntimeError("no memory")
        return works(self, of, *others, **options)

    monkeypatch.setattr(RunningBatch, what, fails)
    staying = Caller(scheduler, good)
    staying.wait_for_an_id()
    assert Caller(scheduler, bad, bad).wait().reasons() == ["failed"] * 2
    assert not staying.done[0].is_set()
    assert staying.wait().ids() == expected
    assert bad.prompt in prompts
    # What was kept of the prompt is not trusted.
    monkeypatch.undo()
    assert Caller(scheduler, bad).wait().events[0][-1].reused == 0


def test_caches_that_went_with_a_prompt_end_all_rows(scheduler, monkeypatch):
    bad, good = ask(5), ask(5, LONG)
    expected = Caller(scheduler, good).wait().ids()
    enter = running_batch.programs.enter

    def fails(slots, *others, **options):
        if not armed:
            return enter(slots, *others, **options)
        armed.clear()
        slots.caches[0].keys.delete()
        raise RuntimeError("no memory")

    armed = []
    monkeypatch.setattr(running_batch.programs, "enter", fails)
    staying = Caller(scheduler, good)
    staying.wait_for_an_id()
    armed.append(True)
    assert Caller(scheduler, bad).wait().reasons() == ["failed"]
    assert staying.wait().reasons() == ["failed"]
    assert Caller(scheduler, good).wait().ids() == expected


def test_what_is_counted(scheduler):
    before = scheduler.counts()
    Caller(scheduler, ask(7, Limits([], 5)), ask(3, Limits([], 4))).wait()
    after = scheduler.counts()
    assert after.state == "ready"
    assert after.slots == 4
    assert after.prompt_tokens - before.prompt_tokens == 10
    assert after.generated_tokens - before.generated_tokens == 9
    assert after.ended["length"] - before.ended.get("length", 0) == 2
    assert after.steps > before.steps


def test_draining_ends_what_runs_and_takes_nothing_new(causal_lm):
    scheduler = Scheduler(causal_lm, slots=4, context=128, width=16)
    early = Caller(scheduler, *[ask(limits=LONG)] * 6)  # while nothing is compiled yet
    ready = threading.Event()
    scheduler.start([lambda: None], lambda seconds: ready.set())
    early.wait_for_an_id()
    assert ready.is_set()
    assert not scheduler.drain(0)
    with pytest.raises(ClosingError):
        Caller(scheduler, ask())
    with pytest.raises(ClosingError):
        scheduler.call(lambda: 1)
    assert scheduler.drain(60)
    assert early.reasons() == ["length"] * 6
    scheduler.close()
    assert scheduler.counts().state == "draining"


def test_closing_cancels_what_is_left(causal_lm):
    scheduler = Scheduler(causal_lm, slots=2, context=128, width=16)
    scheduler.start()
    caller = Caller(scheduler, *[ask(limits=LONG)] * 3)
    caller.wait_for_an_id()
    scheduler.close()
    assert caller.wait().reasons() == ["cancelled"] * 3


def test_closing_does_not_wait_for_what_is_left_to_compile(causal_lm, monkeypatch):
    first, going, tried = threading.Event(), threading.Event(), []

    def slowly(self, progress):
        for number in range(3):
            progress(f"program {number}")
            tried.append(number)
            first.set()
            going.wait(60)

    monkeypatch.setattr(RunningBatch, "compile", slowly)
    scheduler = Scheduler(causal_lm, slots=2, context=128, width=16)
    caller = Caller(scheduler, ask())
    scheduler.start()
    assert first.wait(60)
    closing = threading.Thread(target=scheduler.close)
    closing.start()
    until(lambda: scheduler.counts().state == "draining")
    going.set()
    closing.join(60)
    assert tried == [0]
    assert caller.wait().reasons() == ["cancelled"]


def test_a_scheduler_that_cannot_begin_ends_its_rows(causal_lm, monkeypatch):
    def fail(self, progress):
        raise MemoryError

    monkeypatch.setattr(RunningBatch, "compile", fail)
    scheduler = Scheduler(causal_lm, slots=2, context=128, width=16)
    caller = Caller(scheduler, ask())
    scheduler.start()
    assert caller.wait().reasons() == ["failed"]
    assert scheduler.counts().state == "failed"
    with pytest.raises(ClosingError, match="failed"):
        Caller(scheduler, ask())


@pytest.mark.processes
@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        ([], ["causal 1x2x4x1"]),
        pytest.param(
            ["every"],
            ["causal 2x2x2x1", "causal 1x4x1x2", "fills 2x2x2x1"],
            marks=pytest.mark.nightly,
        ),
    ],
)
def test_rows_on_eight_devices_say_what_they_say_on_one(arguments, printed):
    script = Path(__file__).with_name("on_eight_devices.py")
    done = subprocess.run(
        [sys.executable, script, *arguments],
        capture_output=True,
        text=True,
        timeout=900,
        env=with_quick_flags(),
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == printed
