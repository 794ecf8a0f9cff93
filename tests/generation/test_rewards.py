"""Rewards of conversations are those that training sees in its rows."""

import dataclasses

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.config import MeshConfig
from glm_jax.errors import UserError
from glm_jax.losses.by_objective import hidden_of
from glm_jax.losses.pairs import at_last_tokens
from glm_jax.models.params import bind
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.run.start import starting_point
from tests.pair_runs import COLOURS, config_of, save_base, write_pairs

HI = {"role": "user", "content": "hi"}


@pytest.mark.parametrize("kind", ["causal", pytest.param("glm", marks=pytest.mark.nightly)])
def test_rewards_are_those_of_the_rows_of_training(tmp_path, kind):
    base, pairs = save_base(tmp_path / "base", kind), write_pairs(tmp_path / "f" / "a.jsonl", 5)
    config = config_of(base, pairs, "reward")
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    config, params = starting_point(config, tmp_path / "none", mesh)
    tokenizer = glm_jax.load_tokenizer(base)
    lm = glm_jax.LanguageModel(config.resolved_model, params, tokenizer)
    conversations = [
        [{"role": "user", "content": f"Say {COLOURS[n]} {n}"},
         {"role": "assistant", "content": COLOURS[(n + other) % 10]}]
        for n in range(5) for other in (0, 1)
    ]  # fmt: skip
    found = dict(zip(map(str, conversations), lm.rewards(conversations), strict=True))
    assert len(set(found.values())) > 5
    assert lm.rewards(conversations[3:4])[0] == pytest.approx(found[str(conversations[3])], 1e-4)
    expected = []

    @jax.jit
    def of_rows(params, batch):
        model = bind(config.resolved_model, params)
        return at_last_tokens(batch, model.values(hidden_of(model, batch)))

    for split, size in (("train", 4), ("eval", 1)):
        stream = glm_jax.batches(config, split)
        seen: set[float] = set()
        while len(seen) < 2 * min(size, stream.num_rows):
            batch = next(stream)
            values = of_rows(params, batch)
            seen |= {round(float(value), 5) for value in np.ravel(values)}
        expected += seen
    np.testing.assert_allclose(sorted(set(expected)), sorted(found.values()), atol=2e-5)


def test_what_has_no_reward(tmp_path):
    lm = glm_jax.load("bundled")
    with pytest.raises(UserError, match=r"the model has no value head \(model\.value_head\)"):
        lm.rewards([[HI, {"role": "assistant", "content": "yes"}]])
    config = lm.config.resolved()
    with_head = glm_jax.LanguageModel(
        dataclasses.replace(config, value_head=True), lm.params, lm.tokenizer
    )
    with pytest.raises(
        UserError, match="the last message must be the assistant's; it is of 'user'"
    ):
        with_head.rewards([[HI]])
    with pytest.raises(UserError, match="was loaded without a tokenizer"):
        glm_jax.LanguageModel(config, lm.params).rewards([[HI]])
