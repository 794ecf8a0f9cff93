"""Runs over a frozen base: what their checkpoints hold, and where the base comes from again."""

import dataclasses
import json
import shutil

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.adapters.low_rank import LowRank
from glm_jax.adapters.quantised import is_quantised
from glm_jax.checkpoints.base import Base
from glm_jax.checkpoints.params import load_params, load_saved
from glm_jax.errors import UserError
from glm_jax.models.trees import to_paths
from tests.tiny_run import Stream
from tests.tuned_runs import KINDS, config_of, save_base, tune


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return save_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="module")
def runs(base, tmp_path_factory):
    """Workdirs of finished runs by kind, each made once."""
    directory, made = tmp_path_factory.mktemp("runs"), {}

    def run(kind):
        if kind not in made:
            config = config_of(kind, base, num_steps=2, eval_every=0, eval_batches=1)
            assert tune(config, directory / kind) == 0
            made[kind] = directory / kind
        return made[kind]

    return run


def loss(lm):
    return float(lm.loss(next(Stream())))


@pytest.mark.parametrize(
    "kind",
    [
        pytest.param(kind, marks=[pytest.mark.nightly] * (kind not in ("lora", "part")))
        for kind in KINDS
    ],
)
def test_a_run_is_loaded_by_itself_and_over_its_base(runs, base, kind):
    alone = glm_jax.load(runs(kind))
    over = glm_jax.load(base, adapter=runs(kind))
    # Quantised here, plain there; int4 in groups of 8 of these random weights is off by 1e-3.
    assert loss(alone) == pytest.approx(loss(over), abs=2e-3 if kind.startswith("int") else 1e-6)
    assert abs(loss(alone) - loss(glm_jax.load(base))) > 1e-4
    step = glm_jax.load(runs(kind) / "checkpoints" / "2")
    assert loss(step) == loss(alone)
    for path, leaf in to_paths(alone.params).items():
        held = is_quantised(leaf.base if isinstance(leaf, LowRank) else leaf)
        assert held == (kind.startswith("int") and path.endswith("/kernel")), path


def test_the_checkpoint_holds_what_was_trained_alone(runs, base):
    saved = load_saved(runs("lora"))
    arrays = jax.tree.leaves(saved.params)
    assert sorted(leaf.shape for leaf in arrays) == sorted(3 * [(2, 16, 2), (2, 2, 2, 8)])
    assert (saved.base.name, saved.base.path) == (str(base), str(base))
    metadata = json.loads((runs("lora") / "checkpoints/2/_CHECKPOINT_METADATA").read_text())
    assert Base.recorded(metadata["custom_metadata"]["base"]) == saved.base
    with pytest.raises(UserError, match=r"holds what was trained over .*base' alone"):
        load_params(runs("lora"))


def test_a_base_of_another_dtype_or_in_integers_is_the_base(runs, base):
    expected = loss(glm_jax.load(base, adapter=runs("lora")))
    for options in ({"dtype": "bfloat16"}, {"dtype": "float16"}, {"quantize": "int8"}):
        lm = glm_jax.load(base, adapter=runs("lora"), **options)
        assert loss(lm) == pytest.approx(expected, abs=0.02)
        lm = glm_jax.load(runs("lora"), **options)
        assert loss(lm) == pytest.approx(expected, abs=0.02)
    with pytest.raises(UserError, match="quantised already"):
        glm_jax.load(runs("int8"), quantize="int4")


def test_another_base_is_refused_with_both_fingerprints(runs, tmp_path):
    other = save_base(tmp_path / "other", seed=6)
    with pytest.raises(UserError, match=r"trained over .*base'.* fingerprint [0-9a-f]{12};") as one:
        glm_jax.load(other, adapter=runs("lora"))
    assert "other' is another model, with the fingerprint" in str(one.value)
    lm = glm_jax.load(other)
    # A relative whose norms alone were tuned, under an adapter over integers.
    tuned = glm_jax.load(load_saved(runs("int8")).base.path)
    params = dict(tuned.params)
    params["final_norm"] = {**params["final_norm"], "scale": params["final_norm"]["scale"] * 1.1}
    glm_jax.LanguageModel(tuned.config, params).save(tmp_path / "relative")
    with pytest.raises(UserError, match=r"the first that differs: final_norm/scale"):
        glm_jax.load(tmp_path / "relative", adapter=runs("int8"))
    assert loss(lm) > 0


def test_a_base_that_has_moved(base, tmp_path):
    there = shutil.copytree(base, tmp_path / "there")
    config = config_of("lora", there, num_steps=1, eval_every=0, eval_batches=1)
    assert tune(config, tmp_path / "run") == 0
    there.rename(tmp_path / "moved")
    with pytest.raises(UserError, match=r"no longer in .*there'; .*adapter=WORKDIR"):
        glm_jax.load(tmp_path / "run")
    lm = glm_jax.load(tmp_path / "moved", adapter=tmp_path / "run")
    assert any(isinstance(leaf, LowRank) for leaf in to_paths(lm.params).values())


def test_a_whole_model_is_no_adapter(base, tmp_path):
    config = config_of("lora", base, num_steps=1, eval_every=0, eval_batches=1)
    config = dataclasses.replace(config, lora=dataclasses.replace(config.lora, rank=0))
    assert tune(config, tmp_path / "run") == 0
    with pytest.raises(UserError, match=r"holds a whole model; load it by itself"):
        glm_jax.load(base, adapter=tmp_path / "run")


@pytest.mark.parametrize("kind", ["lora", "int4"])
def test_a_tuned_model_is_written_merged(runs, tmp_path, kind):
    lm = glm_jax.load(runs(kind))
    expected = np.asarray(lm.logits(next(Stream())))
    lm.save(tmp_path / "run", format="orbax", dequantize=kind == "int4")
    saved = glm_jax.load(tmp_path / "run")
    np.testing.assert_allclose(saved.logits(next(Stream())), expected, atol=1e-5)
    assert not any(isinstance(leaf, LowRank) for leaf in to_paths(saved.params).values())
