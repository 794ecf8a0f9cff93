"""The parts of a run over rollouts: what is refused before anything is written."""

import dataclasses

import pytest

import glm_jax
from glm_jax.errors import UserError
from glm_jax.models.params import create_params
from glm_jax.training.rollouts.assembling import records_of
from glm_jax.training.rollouts.rewarding import RewardFunction, RewardModel
from tests.pair_runs import save_base


def test_records_stand_in_the_order_of_the_prompts(policy_of):
    policy = policy_of()
    records = records_of(policy.config, policy.tokenizer)
    assert sum(map(len, records.values())) == 20
    stream = policy.stream()
    for _ in range(6):
        batch = next(stream)
        for ids, number in zip(batch.ids, batch.numbers.tolist(), strict=True):
            assert records["train"][number]["prompt"] in policy.tokenizer.decode(ids)


def changed(policy, rollouts):
    """What assembles the parts of a run with other rollouts."""
    return dataclasses.replace(policy.assembling, config=policy.changed(rollouts=rollouts))


def test_rewards_of_a_function_and_of_a_model(policy_of, tmp_path):
    policy = policy_of()
    found = policy.assembling.rewards()
    assert isinstance(found, RewardFunction)
    found.close()
    plain = save_base(tmp_path / "plain")
    rollouts = dataclasses.replace(policy.config.rollouts, reward=None, reward_model=str(plain))
    with pytest.raises(UserError, match=r"rollouts.reward_model='.*plain' has no value head"):
        changed(policy, rollouts).rewards()


def test_a_reward_model_says_what_answers_are_worth(policy_of, tmp_path):
    """Its rewards are those of `lm.rewards`, of prompt and answer."""
    policy = policy_of()
    base = glm_jax.load(policy.config.train.init_from)
    config = dataclasses.replace(base.config, value_head=True)
    params = create_params(config.resolved(), policy.mesh, 3)
    glm_jax.LanguageModel(config, params, base.tokenizer).save(tmp_path / "judge", format="orbax")
    rollouts = dataclasses.replace(
        policy.config.rollouts, reward=None, reward_model=str(tmp_path / "judge")
    )
    rewards = changed(policy, rollouts).rewards()
    assert isinstance(rewards, RewardModel)
    prompts = next(policy.stream())
    answered = policy.answering(policy.params, prompts, "train", 0, 2, greedy=False)
    found = rewards(answered.asked)
    judge = glm_jax.load(tmp_path / "judge")
    chats = [
        [*one.messages, {"role": "assistant", "content": one.answer}] for one in answered.asked
    ]
    assert found == pytest.approx(judge.rewards(chats), abs=1e-5)
    assert len(set(found)) > 1


def test_parts_of_a_run(policy_of, tmp_path):
    policy = policy_of(policy={"reference": True}, rollouts={"passes": 2}, train={"num_steps": 4})
    held_out = [next(policy.stream("eval"))]
    parts = policy.assembling.parts(
        policy.stream(), held_out, policy.params, tmp_path, tmp_path / "samples.txt"
    )
    try:
        fed = parts.feed.take(policy.state)
        assert fed.batch.reference is not None
        assert not parts.feed.between
        assert "eval/reward" in parts.evaluator(policy.params)
        assert (tmp_path / "reference.json").is_file()
    finally:
        parts.feed.close()
