"""The reference of a run: its log-probabilities, computed once, gone on with, kept and refused."""

import dataclasses

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.config import MeshConfig
from glm_jax.data.examples.reference import ReferenceStore, ReferenceWriter
from glm_jax.errors import UserError
from glm_jax.losses.by_objective import token_losses
from glm_jax.models.params import bind
from glm_jax.pipeline import references
from glm_jax.pipeline.references import with_reference
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.run.start import starting_point
from tests.pair_runs import config_of, save_base, write_pairs

MESH = make_mesh(MeshConfig(), jax.devices()[:1])


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return save_base(folder / "base"), write_pairs(folder / "files" / "a.jsonl")


@pytest.fixture(scope="module")
def begun(files):
    """The config of a run, its first parameters, and the config with its reference."""
    config, params = starting_point(config_of(*files), files[0] / "none", MESH)
    return config, params, with_reference(config, files[0] / "none", MESH, params)


def stored(config):
    return ReferenceStore.open(config.preferences.reference)


def test_rows_have_the_log_probabilities_of_the_model_that_the_run_begins_with(files, begun):
    _, params, config = begun
    store = stored(config)
    assert store.directory.parent == files[1].with_name("store.reference")
    model = bind(config.resolved_model, params)
    for split in ("train", "eval"):
        batch = next(glm_jax.batches(config, split))
        expected = np.where(batch.loss_weights > 0, -token_losses(model, batch), 0.0)
        np.testing.assert_allclose(batch.reference, expected, atol=1e-5)
        assert (batch.reference < -1).sum() >= 8 * 4
    fingerprint = glm_jax.batches(config).data[""]["fingerprint"]
    assert fingerprint != glm_jax.batches(begun[0]).data[""]["fingerprint"]


def test_what_is_there_is_not_computed_again_and_adapters_share_it(files, begun, monkeypatch):
    monkeypatch.setattr(references, "_compute", None)
    config, params, whole = begun
    assert with_reference(config, files[0] / "none", MESH, params) == whole
    lora = config_of(*files, lora={"rank": 2, "dropout": 0.0}, preferences={"beta": 0.3})
    lora, params = starting_point(lora, files[0] / "none", MESH)
    found = with_reference(lora, files[0] / "none", MESH, params)
    assert found.preferences.reference == whole.preferences.reference
    # Losses without a reference need none.
    for loss, settings in (("reward", {}), ("dpo", {"reference_free": True})):
        free = config_of(*files, loss, preferences=settings)
        assert with_reference(free, files[0] / "none", MESH, None) is free


def test_a_killed_computation_goes_on_and_gives_the_same_bits(files, begun, tmp_path, monkeypatch):
    config, params, whole = begun
    place = str(tmp_path / "reference")
    settings = dataclasses.replace(config.preferences, reference=place)
    config = dataclasses.replace(config, preferences=settings)
    monkeypatch.setattr(references, "_BATCHES_OF_A_PART", 1)
    wrote, add = [], ReferenceWriter.add

    def stops(self, split, first, *rest):
        if len(wrote) == 2:
            raise KeyboardInterrupt
        wrote.append((split, first))
        add(self, split, first, *rest)

    monkeypatch.setattr(ReferenceWriter, "add", stops)
    with pytest.raises(KeyboardInterrupt):
        with_reference(config, files[0] / "none", MESH, params)
    assert not (tmp_path / "reference").exists()
    wrote.clear()

    def counts(self, split, first, *rest):
        wrote.append((split, first))
        add(self, split, first, *rest)

    monkeypatch.setattr(ReferenceWriter, "add", counts)
    found = stored(with_reference(config, files[0] / "none", MESH, params))
    # Batches of four pairs; the rows 0 to 7 were done.
    assert wrote[0] == ("train", 8)
    for split, values in stored(whole).log_probs.items():
        np.testing.assert_array_equal(found.log_probs[split], values)


def test_what_is_refused(files, begun, tmp_path):
    config, params, whole = begun
    other = save_base(tmp_path / "other", seed=6)
    place = {"reference": whole.preferences.reference}
    changed, params_of_other = starting_point(
        config_of(other, files[1], preferences=place), other / "none", MESH
    )
    with pytest.raises(UserError, match=r"is of other things than this run: model \w+, not \w+;"):
        with_reference(changed, other / "none", MESH, params_of_other)
    drawn = config_of(*files, train={"init_from": None})
    with pytest.raises(UserError, match=r"compares with the model that a run begins with: set tra"):
        with_reference(drawn, files[0] / "none", MESH, None)
    with pytest.raises(UserError, match=r"began with are gone from 'None'; put them back"):
        with_reference(config, files[0] / "none", MESH, None)
    bad = jax.tree.map(lambda leaf: leaf * np.nan, params)
    with pytest.raises(UserError, match=r"not finite in the rows 0 to \d+ of the split 'train'"):
        with_reference(config, files[0] / "none", MESH, bad)
