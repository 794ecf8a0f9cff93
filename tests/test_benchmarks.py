"""The benchmarks' arithmetic and arguments; what they measure is nobody's test."""

import importlib.util
import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from glm_jax.planning.chips import CHIPS

FOLDER = Path(__file__).parent.parent / "benchmarks"
TINY = {"layers": 2, "width": 64, "heads": 2, "kv_heads": 1, "mlp_width": 96, "vocab_size": 128}


@pytest.fixture
def load(monkeypatch):
    """A benchmark as a module, with the arguments of a command line."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def load(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *arguments])
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", FOLDER / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


def arguments(**shape):
    return [word for name, value in shape.items() for word in (f"--{name}", str(value))]


def last_line(capsys):
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_a_preset_is_defaults_and_what_is_given_goes_before(load):
    decode = load("decode")
    args = decode.accelerator.parse(decode._parser(), "decode")
    assert (args.preset, args.layers, args.prompt, args.threads) == (None, 8, 64, 2)
    load("decode", "--preset", "h100", "--layers", "3")
    args = decode.accelerator.parse(decode._parser(), "decode")
    assert (args.layers, args.width, args.prompt, args.dtype) == (3, 2048, 1024, "bfloat16")
    load("decode", "--preset", "h1")
    with pytest.raises(SystemExit):
        decode.accelerator.parse(decode._parser(), "decode")


def test_quantised_matrices_are_a_side_of_their_own(load, capsys, monkeypatch):
    decode = load("decode", "--no_transformers", "--quantize", "int8", "int4", "--rounds", "3")
    # Seconds by the clock and of processor, by round.
    times = {"jax": [2.0, 8.0, 4.0], "int8": [1.0, 2.0, 4.0], "int4": [4.0, 4.0, 4.0]}

    class Server:
        def __init__(self, side, threads):
            self.left = iter(2 * times[side])
            self.facts = {"jax_version": "1"} if side == "jax" else {}

        def ask(self, line):
            wall = next(self.left)
            return [wall, wall / 2]

        def close(self):
            pass

    monkeypatch.setattr(decode.rivals, "Server", Server)
    decode.main()
    result = last_line(capsys)
    assert result["tokens_per_second_batch_8"] == 8 * 64 / 4
    assert result["int8_tokens_per_second_batch_8"] == 8 * 64 / 2
    assert result["int8_times_float32_batch_1"] == 2.0  # of 2, 4 and 1
    assert result["int4_times_float32_cpu_batch_8"] == 1.0  # of 0.5, 2 and 1
    assert not any("transformers" in name for name in result)


def test_the_products_of_a_step_on_cpu_are_counted(load):
    """As docs/decisions/007-cpu-attention.md does: 386 GFLOP, attention over all pairs."""
    module = load("train_step")
    args = types.SimpleNamespace(
        layers=8, width=512, vocab_size=8192, length=512, batch_size=4, prefix=0
    )
    layers, output = 8 * 12 * 512**2 * 2048, 8192 * 512 * 1024
    pairs = 2 * 2 * 512 * 512 * 512 * 4 * 8  # scores and values, 4 rows, 8 layers
    assert module.step_flop(args) == 6 * (layers + output) + 3 * pairs
    assert round(module.step_flop(args) / 1e9) == 387


def test_a_step_of_training_counts_the_flops_of_its_rows(load, capsys):
    shape = arguments(**TINY, length=64, batch_size=2, steps=2)
    load("train_step", "--preset", "h100", *shape).main()
    said = last_line(capsys)
    # Queries and output, keys and values, the three matrices of the MLP; and the output matrix.
    matrices = 2 * (2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96) + 128 * 64
    seen = 65 / 2
    assert said["flops_per_token"] == 6 * matrices + 12 * 2 * 64 * seen
    assert said["tokens_per_second"] == pytest.approx(128 / said["seconds"], rel=0.02)
    # Six times two steps on the same rows.
    assert len(said["losses"]) == 6
    assert said["losses"][-1] < said["losses"][0]
    assert (said["length"], said["remat"], said["preset"]) == (64, "dots", "h100")


def test_a_step_of_a_config_has_random_parameters_and_a_random_base(load, capsys):
    """Adapters over integers: trained 6 FLOPs a parameter and token, frozen matrices 4."""
    config = str(FOLDER.parent / "configs" / "tiny_chatglm_cpu.py")
    shape = ["model.num_layers=1", "model.embed_dim=64", "model.num_heads=2"]
    shape += ["model.num_kv_heads=1", "model.mlp_dim=96", "data.sequence_length=32"]
    shape += ["data.batch_size=2", "lora.rank=2", "train.quantize_base=int8"]
    load("config_step", "--config", config, "--rounds", "2", "--set", *shape).main()
    said = last_line(capsys)
    frozen = 2 * 64 * 64 + 2 * 64 * 32 + 3 * 64 * 96 + 7168 * 64
    factors = 2 * (64 + 64) + 2 * 2 * (64 + 32)  # a and b of queries; of keys and values
    attention = 12 * 64 * 32 * 0.5
    assert said["flops_per_token"] == 4 * frozen + 6 * factors + attention
    assert said["tokens_per_second"] == pytest.approx(64 / said["seconds"], rel=0.02)
    assert (said["lora_rank"], said["quantize_base"], said["micro_batches"]) == (2, "int8", 1)
    # The first guess is near one in 7,168, and the same rows are learnt.
    assert said["losses"][0] == pytest.approx(np.log(7168), abs=0.3)
    assert said["losses"][0] > said["losses"][-1]
    assert 0 < said["program_gib"] < 0.1


def test_decoding_counts_the_bytes_of_a_step(load, capsys):
    shape = arguments(**TINY, prompt=40, new_tokens=24, rounds=1)
    load("decode", "--preset", "h100", *shape).main()
    said = last_line(capsys)
    layer = 2 * 64 * 64 + 2 * 64 * 32 + 64 + 2 * 32 + 3 * 64 * 96 + 2 * 64
    weights = 2 * layer + 64 + 128 * 64
    # Two bytes a number, keys and values, two layers of one head of 32; 52 to 64 places are filled
    # in the second half of the answer.
    for batch_size in (1, 8):
        cache = 2 * 2 * 32 * batch_size * 58
        assert said[f"step_bytes_batch_{batch_size}"] == 2 * (weights + cache)
        assert said[f"tokens_per_second_batch_{batch_size}"] > 0
    assert said["parameters"] == weights + 128 * 64


def test_prompt_and_half_of_the_answer_need_a_cache_of_the_same_size(load):
    from glm_jax.generation.cache import bucket

    preset = load("decode").accelerator.PRESETS["decode"]["h100"]
    prompt, new_tokens = preset["prompt"], preset["new_tokens"]
    assert bucket(prompt + new_tokens // 2) == bucket(prompt + new_tokens)


def test_shares_are_of_published_peaks(load):
    accelerator = load("decode").accelerator
    h200 = types.SimpleNamespace(device_kind="NVIDIA H200")
    assert accelerator.peaks(h200) == (989e12, 4.8e12)
    chip = CHIPS["v5e"]
    tpu = types.SimpleNamespace(device_kind=chip.device_kinds[0])
    assert accelerator.peaks(tpu) == (chip.peak_flops, chip.hbm_bandwidth)
    assert accelerator.peaks(types.SimpleNamespace(device_kind="cpu")) == (None, None)
    assert accelerator.share(494.5e12, 989e12) == 0.5
    assert accelerator.share(1.0, None) is None


def test_rows_of_a_preset_are_causal(load):
    train_step = load("train_step")
    args = types.SimpleNamespace(batch_size=2, length=5, vocab_size=7)
    fields = train_step.causal_fields(args)
    np.testing.assert_array_equal(fields["attend_end"], [[1, 2, 3, 4, 5]] * 2)
    assert not fields["attend_start"].any()
    assert (fields["objective"] == 4).all()
    assert {field.shape for field in fields.values()} == {(2, 5)}


def test_kernels_are_counted_by_name(load):
    text = 'a custom_call_target="x.y", b custom_call_target="x.y" custom_call_target="z"'
    assert load("decode").accelerator.kernels(text) == {"x.y": 2, "z": 1}


def test_the_median_leaves_out_the_first_call(load, monkeypatch):
    accelerator = load("decode").accelerator
    clock = iter([0, 100, 0, 1, 0, 5, 0, 3])
    monkeypatch.setattr(accelerator.time, "perf_counter", lambda: next(clock))
    assert accelerator.median_seconds(lambda: None, 3) == 3


def test_the_pipeline_counts_the_tokens_of_its_text(load, capsys):
    shape = arguments(megabytes=0.05, length=64, batch_size=4, rounds=1)
    load("pipeline", *shape).main()
    said = last_line(capsys)
    # The text is cut at the end of a document.
    assert 50_000 <= said["bytes"] < 200_000
    # A piece of this vocabulary is 3 to 4 bytes long.
    assert 2 < said["bytes"] / said["tokens"] < 6
    assert said["shape"] == [4, 64]
    slower = min(said["store_tokens_per_second"], said["stream_tokens_per_second"])
    assert 0 < said["tokens_per_second"] < slower


def test_measured_memory_is_set_against_the_planned(load, tmp_path, monkeypatch):
    memory = load("inference_memory")
    peaks = {"model": 0.5, "small": 0.25}
    monkeypatch.setattr(memory, "_child", lambda path, way, context: peaks[path.name])
    args = types.SimpleNamespace(layers=2, width=128, vocab_size=64, context=32)
    found = memory._measure(args, tmp_path)
    # Two layers of 128 with heads of 64: query, output, keys and values of both heads, biases, MLP.
    layer = 2 * 128 * 128 + 2 * 128 * 128 + 3 * 128 + 3 * 128 * 384 + 2 * 128
    assert found["parameters"] == 2 * layer + 2 * 64 * 128 + 128
    for way in ("float32", "int8", "int4"):
        assert found[f"{way}_measured_gib"] == found[f"{way}_baseline_gib"] == 0.25
        # Both are rounded to three digits behind the point.
        planned, ratio = found[f"{way}_planned_gib"], found[f"{way}_ratio"]
        assert ratio * planned == pytest.approx(0.25, abs=(ratio + planned) * 5e-4)
    assert found["int4_planned_gib"] <= found["int8_planned_gib"] < found["float32_planned_gib"]


def test_narrowing_is_set_against_sorting(load, capsys):
    load("sampling", "--rows", "3", "--vocab_sizes", "400", "--rounds", "1").main()
    results = last_line(capsys)["results"]["400"]
    assert {name: found["differ"] for name, found in results.items()} == {
        "top_k_50": 0,
        "top_p_0.9": 0,
        "both": 0,
    }
    assert results["top_k_50"]["kept"] == 3 * 50
    assert results["both"]["kept"] < results["top_p_0.9"]["kept"] < 3 * 400
