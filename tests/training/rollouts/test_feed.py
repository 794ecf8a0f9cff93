"""The batches of steps: made where a cycle begins, and gone through as often as asked."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from glm_jax.batch import RolloutBatch
from glm_jax.sharding.mesh import batch_sharding
from glm_jax.training.rollouts.feed import RolloutFeed
from glm_jax.training.rollouts.making import Made


class Numbered:
    """Makes batches that say of which step they are."""

    def __init__(self):
        self.steps = []

    def __call__(self, params, reference, prompts, step):
        self.steps.append((step, prompts.numbers.tolist()))
        zeros = np.zeros((2, 4), np.float32)
        names = [field.name for field in dataclasses.fields(RolloutBatch)]
        whole = dict.fromkeys(names[:8], zeros.astype(np.int32))
        batches = [
            RolloutBatch(**whole, old=zeros + 10 * step + number, advantages=zeros)
            for number in (1, 2)
        ]
        return Made(batches, {"reward": float(step)}, [{"rows": 2}, {"rows": 2}])


def test_steps_of_cycles(policy_of):
    """2 batches gone through twice: new answers before steps 1 and 5, saves after 4 and 8."""
    policy = policy_of(
        rollouts={"batches": 2, "passes": 2}, train={"num_steps": 8, "checkpoint_every": 4}
    )
    making, closed = Numbered(), []
    sharding = batch_sharding(policy.mesh)
    feed = RolloutFeed(policy.stream(), making, None, 2, sharding, lambda: closed.append(True))
    assert feed.category == "rolling_out"
    found, between, states = [], [], []
    for step in range(8):
        state = dataclasses.replace(policy.state, step=jnp.int32(step))
        fed = feed.take(state)
        found.append(int(np.asarray(fed.batch.old)[0, 0]))
        between.append(feed.between)
        states.append(fed.stream_state)
        assert fed.metrics == {"reward": float(step // 4 * 4)}
        assert fed.statistics["rows"] == 2
    assert found == [1, 2, 1, 2, 41, 42, 41, 42]
    assert between == [False, False, False, True] * 2
    assert states == [b"1"] * 4 + [b"2"] * 4
    assert [step for step, _ in making.steps] == [0, 4]
    assert making.steps[0][1] != making.steps[1][1]
    feed.close()
    assert closed == [True]


def test_the_reference_has_what_the_policy_does_not_train(policy_of):
    policy, asked = policy_of(lora={"rank": 2, "dropout": 0.0}), []

    class Reference:
        def params(self, frozen):
            asked.append(frozen)
            return {"of": "reference"}

    class Kept(Numbered):
        def __call__(self, params, reference, prompts, step):
            asked.append(reference)
            return super().__call__(params, reference, prompts, step)

    feed = RolloutFeed(
        policy.stream(), Kept(), Reference(), 1, batch_sharding(policy.mesh), lambda: None
    )
    feed.take(policy.state)
    assert asked[0] is policy.state.frozen
    assert asked[1] == {"of": "reference"}
    assert jax.tree.leaves(policy.state.frozen)
