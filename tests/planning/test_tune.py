"""The search, with a stand-in for the compiler that follows a formula."""

import dataclasses

import pytest

from glm_jax.config import ComputeConfig, Config, DataConfig, MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.planning import extrapolate
from glm_jax.planning import tune as tuning
from glm_jax.planning.facts import rates
from glm_jax.training.memory import GIB

CONFIG = Config(
    ModelConfig(vocab_size=64, num_layers=8, embed_dim=16, num_heads=2, max_positions=32),
    DataConfig(sequence_length=32, batch_size=16),
    mesh=MeshConfig(data=1, fsdp=-1),
    compute=ComputeConfig(remat="full"),
)
# GiB of activations a layer and row, and ms a layer and row, by policy.
SAVED = {"full": 0.1, "attention": 0.2, "qkv": 0.3, "qkv_attention": 0.4, "dots": 0.6, "none": 1.0}
SPEED = {"full": 4.0, "attention": 3.5, "qkv": 3.4, "qkv_attention": 3.0, "dots": 2.9, "none": 2.8}


@dataclasses.dataclass
class Device:
    id: int
    platform: str = "tpu"
    device_kind: str = "TPU v5 lite"
    process_index: int = 0


class Mesh:
    def __init__(self, config, size):
        fixed = [n for n in dataclasses.astuple(config) if n != -1]
        rest = size
        for number in fixed:
            rest //= number
        sizes = [rest if n == -1 else n for n in dataclasses.astuple(config)]
        self.shape = dict(zip(("data", "fsdp", "tensor", "sequence"), sizes, strict=True))
        self.size = size


@pytest.fixture
def compiled(monkeypatch, request):
    """The stand-in, and what it compiled as (mesh, remat, rows, layers)."""
    done = []
    base = getattr(request, "param", 2.0)

    def prepare(config, devices, rows=None):
        mesh = Mesh(config.mesh, len(devices))
        if rows is not None:
            data = dataclasses.replace(config.data, batch_size=round(rows * mesh.size))
            config = dataclasses.replace(config, data=data)
        return config, mesh

    def facts(config, mesh, state):
        return {
            "mesh": mesh.shape,
            "remat": config.compute.remat,
            "sequences_per_chip": config.data.batch_size / mesh.size,
            "bytes_per_device": {"temporaries": None},
        }

    def measure(config, mesh):
        made = facts(config, mesh, None)
        rows, layers = made["sequences_per_chip"], config.model.num_layers
        done.append((tuple(mesh.shape.values()), config.compute.remat, rows, layers))
        peak = base + SAVED[config.compute.remat] * rows * layers
        step = 10.0 + SPEED[config.compute.remat] * rows * layers * (0.5 + 0.5 * (rows > 1))
        # A tensor axis is quicker here, so that the search over meshes matters.
        step *= 0.9 if mesh.shape["tensor"] == 2 else 1.0
        fits = peak <= 15.75
        times = ("compute_ms", "step_ms", "ideal_ms", "memory_ms")
        other = ("kernel_ms", "waited_ms", "overlapped_ms", "exposed_ms", "collective_gb")
        tokens = config.data.batch_size * config.data.sequence_length / mesh.size
        return {
            **made,
            **dict.fromkeys(times, step if fits else None),
            **dict.fromkeys(other, 0.0 if fits else None),
            **rates(tokens, step if fits else None, step),
            "peak_hbm_gib": peak,
            "hbm_gib": 15.75,
            "fits": fits,
            "failed": None,
            "extrapolated": False,
            "compile_seconds": 1.0,
        }

    monkeypatch.setattr(tuning, "prepare", prepare)
    monkeypatch.setattr(tuning, "least_bytes", lambda config, mesh: 0)
    monkeypatch.setattr(extrapolate, "run_facts", facts)
    monkeypatch.setattr(extrapolate, "abstract_state", lambda config, mesh: None)
    return measure, done


DEVICES = [Device(i) for i in range(16)]


def test_the_best_comes_first_and_what_does_not_fit_last(compiled):
    found = tuning.tune(CONFIG, DEVICES, compiled[0])
    rate = [made["tokens_per_second_per_device"] for made in found if made["fits"]]
    assert rate == sorted(rate, reverse=True)
    assert [made["fits"] for made in found] == sorted((m["fits"] for m in found), reverse=True)
    # The fastest policy that fits with a row, on the mesh that is quicker.
    best = found[0]
    assert (best["remat"], best["sequences_per_chip"]) == ("none", 1)
    assert best["mesh"] == {"data": 1, "fsdp": 8, "tensor": 2, "sequence": 1}


def test_of_each_number_of_rows_the_two_that_save_most_and_fit_are_compiled(compiled):
    tuning.tune(CONFIG, DEVICES, compiled[0])
    first = (1, 16, 1, 1)
    rows = [(remat, rows) for mesh, remat, rows, _ in compiled[1] if mesh == first]
    # 13.75 GiB hold 1 row of "none", 2 of "dots", 4 of "qkv_attention", 5 of "qkv", 8 of
    # "attention", 17 of "full"; what did not fit is not tried with more rows.
    assert rows == [
        ("none", 1),
        ("dots", 1),
        ("none", 2),
        ("dots", 2),
        ("qkv_attention", 2),
        ("dots", 4),
        ("qkv_attention", 4),
        ("qkv", 4),
        ("qkv_attention", 8),
        ("qkv", 8),
        ("attention", 8),
        ("full", 8),
        ("attention", 16),
        ("full", 16),
    ]
    assert len(set(compiled[1])) == len(compiled[1])


def test_what_cannot_fit_by_arithmetic_is_not_compiled(compiled, monkeypatch):
    said = []
    monkeypatch.setattr(
        tuning, "least_bytes", lambda config, mesh: 20 * GIB * (config.compute.remat != "full")
    )
    tuning.tune(CONFIG, DEVICES, compiled[0], say=said.append)
    assert {remat for _, remat, _, _ in compiled[1]} == {"full"}
    assert "mesh 1,16,1,1 remat attention rows 1: needs 20.00 GiB at least, more than 15.75" in said


def test_what_makes_the_compiler_fail_comes_last_and_the_search_goes_on(compiled):
    broken = "the compiler failed: Check failed"

    def failing(config, mesh):
        made = compiled[0](config, mesh)
        if config.compute.remat != "none":
            return made
        return {**made, "failed": broken, "fits": None, "peak_hbm_gib": None, "step_ms": None}

    for layers in (None, 2):
        found = tuning.tune(CONFIG, DEVICES, failing, num_layers=layers)
        assert found[0]["remat"] == "dots"
        assert found[0]["failed"] is None
        failed = [made["failed"] is not None for made in found]
        assert failed == sorted(failed)
        assert {made["remat"] for made in found if made["failed"]} == {"none"}


def test_given_rows_are_kept(compiled):
    found = tuning.tune(CONFIG, DEVICES, compiled[0], sequences_per_chip=2)
    assert {made["sequences_per_chip"] for made in found} == {2}


def test_two_small_models_stand_for_the_whole_and_the_winner_is_compiled(compiled):
    found = tuning.tune(CONFIG, DEVICES, compiled[0], num_layers=2)
    assert {layers for *_, layers in compiled[1][:-1]} == {2, 4}
    assert compiled[1][-1] == ((1, 8, 2, 1), "none", 1, 8)
    assert [made["extrapolated"] for made in found] == [False] + [True] * (len(found) - 1)
    # The formula is a line in the layers, so nothing is lost.
    whole = tuning.tune(CONFIG, DEVICES, compiled[0])
    assert found[0]["tokens_per_second_per_device"] == whole[0]["tokens_per_second_per_device"]


def test_depths_beyond_the_model_and_devices_without_times_are_refused(compiled):
    for layers in (1, 5):
        with pytest.raises(UserError, match=f"at most half of model.num_layers=8; got {layers}"):
            tuning.tune(CONFIG, DEVICES, compiled[0], num_layers=layers)
    with pytest.raises(UserError, match="add --topology v5e:4x4 or h100:8"):
        tuning.tune(CONFIG, [Device(0, "cpu", "cpu")], compiled[0])


def test_meshes_divide_what_they_split():
    model = dataclasses.replace(CONFIG.model, num_heads=2)
    meshes = list(tuning.other_meshes(dataclasses.replace(CONFIG, model=model), 16))
    assert MeshConfig(data=1, fsdp=-1, tensor=2) in meshes
    assert MeshConfig(data=1, fsdp=-1, tensor=4) not in meshes
    assert MeshConfig(data=1, fsdp=-1, sequence=4) in meshes
    assert list(tuning.other_meshes(CONFIG, 1)) == [MeshConfig(data=1, fsdp=-1)]


@pytest.mark.parametrize("compiled", [15.2], indirect=True)
def test_where_no_row_fits_a_chip_meshes_that_share_rows_are_tried(compiled):
    found = tuning.tune(CONFIG, DEVICES, compiled[0])
    # A row takes 0.8 GiB beside 15.2, half a row 0.4, a quarter 0.2.
    assert {(m["sequences_per_chip"], m["mesh"]["tensor"]) for m in found if m["fits"]} == {
        (0.5, 2),
        (0.5, 1),
        (0.25, 1),
    }
    assert not found[-1]["fits"]
