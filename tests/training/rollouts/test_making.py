"""The batches of a cycle: what is in them, and what they depend on."""

import jax
import numpy as np
import pytest

from glm_jax.data.examples.prompt_rows import PromptBatch
from glm_jax.training.rollouts.advantages import generalized, of_groups, whitened
from glm_jax.training.rollouts.rows import of_answers


def answers_of(policy, batch):
    """The ids of the answer in each row."""
    return [
        row[there].tolist()
        for row, there in zip(batch.targets, batch.loss_weights > 0, strict=True)
    ]


@pytest.fixture(scope="module")
def grpo(policy_of):
    return policy_of(rollouts={"batches": 2})


@pytest.fixture(scope="module")
def made(grpo):
    prompts = next(grpo.stream())
    return prompts, grpo.making(grpo.params, None, prompts, 6)


def test_a_cycle_is_a_function_of_parameters_seed_and_step(grpo, made):
    prompts, first = made
    again = grpo.making(grpo.params, None, prompts, 6)
    jax.tree.map(np.testing.assert_array_equal, first.batches, again.batches)
    assert first.metrics == again.metrics
    later = grpo.making(grpo.params, None, prompts, 8)
    assert answers_of(grpo, later.batches[0]) != answers_of(grpo, first.batches[0])


def test_rows_hold_prompts_and_their_answers_and_rewards_become_advantages(grpo, made):
    """The reward of `letters` is a function of the answer's text and of the object's number."""
    prompts, cycle = made
    assert isinstance(prompts, PromptBatch)
    assert [batch.tokens.shape for batch in cycle.batches] == [(8, 64)] * 2
    records = grpo.answering._records["train"]
    rewards = []
    for index, batch in enumerate(cycle.batches):
        for row, ids in enumerate(answers_of(grpo, batch)):
            number = index * 2 + row // 4
            prompt = prompts.ids[number]
            assert batch.tokens[row, : len(prompt)].tolist() == prompt
            complete = ids[-1] in grpo.answering._limits.end_ids
            kept = ids[:-1] if complete else ids
            text = str(grpo.tokenizer.read_answer(kept).get("content") or "")
            record = records[prompts.numbers[number]]
            assert record["prompt"] in grpo.tokenizer.decode(prompt)
            rewards.append(len(text) % 5 + record["number"] / 10)
    found = of_groups(np.array(rewards).reshape(-1, 4), "group").reshape(-1)
    for row in range(16):
        batch, at = cycle.batches[row // 8], row % 8
        there = batch.loss_weights[at] > 0
        np.testing.assert_allclose(batch.advantages[at][there], found[row], rtol=1e-6)
        assert (batch.advantages[at][~there] == 0).all()
        assert batch.old_values is None
    assert cycle.metrics["reward"] == pytest.approx(np.mean(rewards))
    assert cycle.metrics["rollouts/log_prob_error"] < 1e-4
    lengths = [len(ids) for batch in cycle.batches for ids in answers_of(grpo, batch)]
    assert cycle.metrics["length/answer"] == pytest.approx(np.mean(lengths))
    assert cycle.statistics[0]["targets"] == sum(lengths[:8])


def test_old_log_probabilities_are_those_of_the_policy(grpo, made):
    scores = grpo.scorer(grpo.params, grpo.params, made[1].batches[0])
    np.testing.assert_array_equal(scores.log_probs, made[1].batches[0].old)
    np.testing.assert_allclose(scores.reference, scores.log_probs, atol=1e-6)


def test_answers_without_an_end_are_handled_as_named(policy_of, made):
    """Masked ones count in the mean of their group, and have no tokens in the loss."""
    prompts, scored = made
    masked = policy_of(rollouts={"batches": 2, "truncated": "mask"})
    found = masked.making(masked.params, None, prompts, 6)
    assert 0 < found.metrics["truncated"] <= 1
    ends = masked.answering._limits.end_ids
    for batch, before in zip(found.batches, scored.batches, strict=True):
        for row, ids in enumerate(answers_of(masked, before)):
            complete = ids[-1] in ends
            assert (batch.loss_weights[row] > 0).any() == complete
            np.testing.assert_array_equal(batch.advantages[row], before.advantages[row])


def test_rewards_that_are_missing_are_replaced_and_counted(policy_of, rollout_folder):
    file = rollout_folder / "files" / "rewards.py"
    policy = policy_of(rollouts={"reward": f"{file}:raises", "failed_reward": -2.0})
    found = policy.making(policy.params, None, next(policy.stream()), 0)
    assert found.metrics["reward/failed"] == 1.0
    assert found.metrics["reward"] == -2.0
    assert found.metrics["reward/groups_alike"] == 1.0
    # Nothing is better than the others, so nothing is learnt.
    assert (found.batches[0].advantages == 0).all()


@pytest.mark.parametrize("scaling", ["batch", "plain"])
def test_ppo_has_values_and_returns(policy_of, scaling):
    """GAE over the values of the policy, with k1 to the reference taken from each reward."""
    policy = policy_of(
        "causal", "ppo", policy={"kl_beta": 0.5, "advantages": scaling, "gae_lambda": 0.9}
    )
    other = jax.tree.map(lambda leaf: leaf * 1.05, policy.params)
    prompts = next(policy.stream())
    (batch,) = policy.making(policy.params, other, prompts, 2).batches
    there = batch.loss_weights > 0
    lengths = there.sum(1)
    values = of_answers(batch, batch.old_values)
    rewards = -0.5 * of_answers(batch, batch.old - batch.reference)
    answered = policy.answering(policy.params, prompts, "train", 2, 4, greedy=False)
    rewards[np.arange(8), lengths - 1] += answered.rewards
    found = generalized(rewards, values, lengths, 1.0, 0.9)
    inside = np.arange(found.shape[1]) < lengths[:, None]
    np.testing.assert_allclose(
        of_answers(batch, batch.returns), np.where(inside, found + values, 0), atol=1e-5
    )
    wanted = whitened(found, inside) if scaling == "batch" else found
    np.testing.assert_allclose(of_answers(batch, batch.advantages), wanted, atol=1e-5)
    assert abs(batch.old - batch.reference)[there].max() > 1e-3


@pytest.mark.parametrize("kind", ["blanks", "glm"])
def test_a_model_that_fills_blanks_answers_in_its_blank(policy_of, kind):
    policy = policy_of(kind)
    prompts = next(policy.stream())
    found = policy.making(policy.params, None, prompts, 0)
    (batch,) = found.batches
    prompt, there = prompts.ids[0], batch.loss_weights[0] > 0
    assert batch.block_positions[0][there].tolist() == list(range(1, there.sum() + 1))
    assert len(set(batch.positions[0][there].tolist())) == 1
    assert batch.attend_end[0][0] == len(prompt) - 1
    assert found.metrics["rollouts/log_prob_error"] < 1e-4


def test_fewer_slots_give_the_same_answers(policy_of, made):
    prompts, cycle = made
    few = policy_of(rollouts={"batches": 2, "slots": 3})
    found = few.making(few.params, None, prompts, 6)
    for one, other in zip(found.batches, cycle.batches, strict=True):
        np.testing.assert_array_equal(one.targets, other.targets)
