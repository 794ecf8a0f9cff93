"""Asking a policy: whose answers are rewarded, with what the function is told, and by whom."""

import jax
import numpy as np
import pytest

from glm_jax.generation.rollouts import RolledOut
from glm_jax.training.rollouts.answering import Answered


@pytest.fixture(scope="module")
def policy(policy_of):
    return policy_of()


@pytest.fixture(scope="module")
def answered(policy):
    prompts = next(policy.stream())
    return prompts, policy.answering(policy.params, prompts, "train", 6, 4, greedy=False)


def test_a_function_is_told_what_stands_in_the_file(policy, answered):
    prompts, found = answered
    assert len(found.answers) == len(found.asked) == 8
    for row, (asked, answer) in enumerate(zip(found.asked, found.answers, strict=True)):
        assert asked.example == {
            "prompt": asked.prompt,
            "answer": asked.prompt.removeprefix("Say "),
            "number": int(asked.prompt.removeprefix("Say ")),
        }
        assert asked.messages == [{"role": "user", "content": asked.prompt}]
        assert asked.prompt in policy.tokenizer.decode(prompts.ids[row // 4])
        ids = answer.ids[:-1] if answer.complete else answer.ids
        assert asked.answer == policy.tokenizer.read_answer(ids)["content"]
        assert found.rewards[row] == len(asked.answer) % 5 + asked.example["number"] / 10


def test_answers_are_drawn_by_seed_and_step(policy, answered):
    prompts, found = answered
    again = policy.answering(policy.params, prompts, "train", 6, 4, greedy=False)
    later = policy.answering(policy.params, prompts, "train", 7, 4, greedy=False)
    ids = [[one.ids for one in part.answers] for part in (found, again, later)]
    assert ids[0] == ids[1] != ids[2]
    greedy = policy.answering(policy.params, prompts, "train", 7, 2, greedy=True)
    assert [one.ids for one in greedy.answers[::2]] == [one.ids for one in greedy.answers[1::2]]


def test_what_was_cut_off_is_not_asked_for_where_it_gets_nothing(policy_of, answered):
    asked, (prompts, _) = [], answered
    zero = policy_of(rollouts={"truncated": "zero"})

    def ask(answers):
        asked.extend(answers)
        return [5.0] * len(answers)

    zero.answering._rewards = ask
    found = zero.answering(zero.params, prompts, "train", 6, 4, greedy=False)
    complete = [one.complete for one in found.answers]
    assert found.rewards.tolist() == [5.0 * one for one in complete]
    assert len(asked) == sum(complete)


def test_metrics_of_answers():
    log_probs = np.zeros(3, np.float32)
    answers = [RolledOut([5, 6, 3], log_probs, True), RolledOut([5], log_probs[:1], False)]
    found = Answered([], answers, np.array([1.0, 0.0]), 1).metrics()
    assert found == {
        "reward": 0.5,
        "reward/deviation": 0.5,
        "reward/least": 0.0,
        "reward/largest": 1.0,
        "reward/failed": 0.5,
        "length/answer": 2.0,
        "length/longest": 3.0,
        "truncated": 0.5,
    }


@pytest.mark.parametrize(("process", "wanted"), [(0, [0, 2, 4]), (1, [1, 3])])
def test_each_process_asks_for_its_share(policy, answered, monkeypatch, process, wanted):
    """Of five answers by two processes; what the other one says comes through `on_all`."""
    from glm_jax.training.rollouts import answering

    asked = []

    def rewards(answers):
        asked.extend(answers)
        return [float(one.number) for one in answers]

    class One:
        def __init__(self, number):
            self.number = number

    def on_all(name, act, what):
        own, other = act(), [n for n in range(5) if n % 2 != process]
        parts = [own, str([float(n) for n in other])]
        return parts if process == 0 else parts[::-1]

    monkeypatch.setattr(answering, "share", lambda: (process, 2))
    monkeypatch.setattr(answering, "on_all", on_all)
    monkeypatch.setattr(policy.answering, "_rewards", rewards)
    found = policy.answering._shared([One(n) for n in range(5)])
    assert found == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert [one.number for one in asked] == wanted
    assert jax.process_count() == 1
