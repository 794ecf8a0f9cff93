"""Rewards of a function in a file: what it gives, and how it may fail."""

import dataclasses
import os
import signal
import time

import pytest

from glm_jax.config import RolloutsConfig
from glm_jax.errors import UserError
from glm_jax.training.rollouts.rewarding import Asked, RewardFunction, RewardModel
from tests.rollout_runs import write_files


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("rewards")).with_name("rewards.py")


def settings(file, name, **options):
    return RolloutsConfig(group_size=4, reward=f"{file}:{name}", **options)


def asked(answer, number=3):
    example = {"prompt": "Say 3", "answer": "3", "number": number}
    messages = [{"role": "user", "content": "Say 3"}]
    return Asked("Say 3", answer, example, messages)


@pytest.mark.parametrize("workers", [1, 2])
def test_rewards_come_in_the_order_of_the_answers(file, workers):
    with RewardFunction(settings(file, "letters", reward_workers=workers)) as rewards:
        found = rewards([asked("x" * n, n) for n in range(10)])
        assert found == pytest.approx([n % 5 + n / 10 for n in range(10)])
        assert rewards([]) == []


def test_what_a_function_prints_is_no_reward(file, capfd):
    with RewardFunction(settings(file, "talks")) as rewards:
        assert rewards([asked("a"), asked("b")]) == [1.0, 1.0]
    assert "a word on standard output" in capfd.readouterr().err


FAILURES = {
    "raises": "raised ValueError: no yes",
    "nothing": "gave nan, no finite number",
    "hangs": "took more than 0.5 s",
    "dies": "ended its process",
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_function_that_gives_no_reward_ends_the_run_with_a_sentence(file, name):
    with RewardFunction(settings(file, name, reward_seconds=0.5)) as rewards:
        with pytest.raises(UserError) as raised:
            rewards([asked("yes")])
        said = str(raised.value)
        assert f"{name} in {str(file)!r} {FAILURES[name]}, for the answer 'yes' to 'Say 3'" in said
        assert "set rollouts.failed_reward" in said


@pytest.mark.parametrize("name", FAILURES)
def test_or_has_none_where_that_is_allowed(file, name):
    chosen = settings(file, name, reward_seconds=0.5, failed_reward=-1.0)
    with RewardFunction(chosen) as rewards:
        assert rewards([asked("yes"), asked("no")]) == [None, None]


@pytest.mark.parametrize(
    ("name", "said"),
    [("gone", "there is no function gone in it"), ("number", "there is no function number in it")],
)
def test_a_file_without_the_function_is_refused(file, name, said):
    with pytest.raises(UserError, match=said):
        RewardFunction(settings(file, name))


def test_a_file_that_is_missing_or_broken_is_refused(file, tmp_path):
    with pytest.raises(UserError, match="names a file that there is not"):
        RewardFunction(settings(tmp_path / "none.py", "f"))
    (tmp_path / "broken.py").write_text("1 +\n")
    with pytest.raises(UserError, match="cannot be used for f: SyntaxError"):
        RewardFunction(settings(tmp_path / "broken.py", "f"))


def test_no_process_is_left_behind(file):
    rewards = RewardFunction(settings(file, "letters"))
    process = rewards._workers.queue[0]._process
    rewards.close()
    assert process.poll() == -signal.SIGKILL
    # One that overran is gone at once, and another is there.
    chosen = settings(file, "hangs", reward_seconds=0.2, failed_reward=0.0)
    with RewardFunction(chosen) as rewards:
        first = rewards._workers.queue[0]._process
        began = time.monotonic()
        rewards([asked("a")])
        assert time.monotonic() - began < 30
        assert first.poll() is not None
        os.kill(rewards._workers.queue[0]._process.pid, 0)


def test_a_reward_model_is_asked_for_the_whole_chat():
    def lengths(conversations):
        return [len(chat[-1]["content"]) + len(chat) for chat in conversations]

    model = RewardModel(lengths)
    longer = dataclasses.replace(asked("four"), answer="seven")
    assert model([asked("four"), longer]) == [6.0, 7.0]
    model.close()
