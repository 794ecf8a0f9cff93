"""Evaluation of a policy, and the samples that are shown of it."""

import jax
import numpy as np
import pytest

from glm_jax.training.rollouts.evaluating import RolloutEvaluator, RolloutSampler


@pytest.fixture(scope="module")
def evaluated(policy_of):
    policy = policy_of()
    stream = policy.stream("eval")
    prompts = [next(stream), next(stream)]
    return (
        policy,
        prompts,
        RolloutEvaluator(policy.config, policy.answering, prompts, policy.eval_step),
    )


def test_held_out_prompts_get_their_most_probable_answer(evaluated):
    policy, prompts, evaluator = evaluated
    found = evaluator(policy.params)
    asked = [ids for batch in prompts for ids in batch.ids]
    limits = policy.answering._limits
    lm_answers = [evaluator.answered(policy.params, batch) for batch in prompts]
    answers = [one for part in lm_answers for one in part.answers]
    assert len(answers) == len(asked) == 4
    rewards = np.concatenate([part.rewards for part in lm_answers])
    assert found["eval/reward"] == pytest.approx(rewards.mean())
    assert found["eval/length/answer"] == np.mean([len(one.ids) for one in answers])
    assert found["eval/truncated"] == np.mean(
        [one.ids[-1] not in limits.end_ids for one in answers]
    )
    assert evaluator(policy.params) == found
    assert all(name.startswith("eval/") for name in found)


def test_the_loss_of_a_batch_shows_whether_parameters_are_finite(evaluated):
    policy, _, evaluator = evaluated
    (batch,) = policy.making(policy.params, None, next(policy.stream()), 0).batches
    # Of the policy that answered: minus the mean advantage.
    there = batch.loss_weights > 0
    assert evaluator.loss_of(policy.params, batch) == pytest.approx(
        -batch.advantages[there].mean(), abs=1e-5
    )
    broken = jax.tree.map(lambda leaf: leaf * np.nan, policy.params)
    assert not np.isfinite(evaluator.loss_of(broken, batch))


def test_samples_show_prompts_answers_and_rewards(evaluated, tmp_path):
    policy, prompts, evaluator = evaluated
    sampler = RolloutSampler(evaluator, prompts[0], tmp_path / "samples.txt")
    assert sampler.lacks(4)
    sampler.add(4, policy.params)
    assert not sampler.lacks(4)
    text = (tmp_path / "samples.txt").read_text()
    assert text.startswith("step 4\n  prompt: Say ")
    assert text.count("    answer: ") == text.count("    reward: ") == 2
    sampler.add(8, policy.params)
    sampler.rewind(4)
    assert "step 8" not in (tmp_path / "samples.txt").read_text()
