from glm_jax.planning.text import advice, describe, table
from glm_jax.training.memory import GIB

REPORT = {
    "topology": "v5e:4x4",
    "extrapolated": False,
    "device_kind": "TPU v5 lite",
    "num_devices": 16,
    "mesh": {"data": 1, "fsdp": 16, "tensor": 1, "sequence": 1},
    "remat": "full",
    "batch_size": 16,
    "sequences_per_chip": 1.0,
    "sequence_length": 2048,
    "parameters": 3000,
    "parameters_by_group": {"embedding": 1000, "mlp": 2000},
    "flops_per_token": 4e10,
    "attention_density": 0.5,
    "bytes_per_device": {
        "parameters": 2 * GIB,
        "optimizer": 4 * GIB,
        "gradients": GIB,
        "batch": 1024,
        "temporaries": 3 * GIB,
    },
    "peak_hbm_gib": 9.0,
    "hbm_gib": 15.75,
    "fits": True,
    "failed": None,
    "ideal_ms": 400.0,
    "memory_ms": 18.4,
    "compute_ms": 600.0,
    "kernel_ms": 50.0,
    "waited_ms": 100.0,
    "overlapped_ms": 20.0,
    "exposed_ms": 100.0,
    "step_ms": 750.0,
    "model_flops_utilisation": 400 / 750,
    "tokens_per_second_per_device": 2048 / 0.75,
    "chip_hours_for_100b_tokens": 1e11 / (2048 / 0.75) / 3600,
    "collective_gb": 12.0,
    "collectives": [
        {
            "kind": "all-reduce",
            "group_size": 16,
            "colors": 4,
            "overlapped": False,
            "count": 28,
            "num_bytes": 12 * 10**9,
        },
        {
            "kind": "all-gather",
            "group_size": 16,
            "colors": None,
            "overlapped": True,
            "count": 2,
            "num_bytes": 100,
        },
    ],
    "kernels": {"interval_attention_forward": 56},
    "kernels_not_timed": [],
    "loops": {"turns_known": 2, "turns_assumed": 1, "assumed_turns": 3, "windowed": 0},
    "broken_estimates": 0,
    "top": [{"name": "mlp/dot_general", "count": 28, "ms": 68.0}],
    "compile_seconds": 70.0,
}
NOTHING = dict.fromkeys(("compute_ms", "kernel_ms", "exposed_ms", "step_ms", "collective_gb"))
TOO_LARGE = {
    **REPORT,
    **NOTHING,
    "tokens_per_second_per_device": None,
    "model_flops_utilisation": None,
    "peak_hbm_gib": 20.0,
    "fits": False,
    "bytes_per_device": {**REPORT["bytes_per_device"], "temporaries": None},
}


def test_a_report_says_how_the_step_adds_up():
    text = describe(REPORT)
    assert "3,000 parameters: embedding 1,000, mlp 2,000" in text
    assert "peak 9.00 of 15.75 GiB per device: fits; parameters 2.0 GiB, optimizer 4.0 GiB" in text
    assert "750.0 ms per step = 600.0 compute (compiler) + 50.0 attention kernels" in text
    assert "(at 50% of the peak) + 100.0 exposed collectives" in text
    # 2048 slots in 0.75 s; 10^11 of them are 36.6 million seconds.
    assert "2,731 tokens/s per chip, 53.3% of the peak" in text
    assert "10,173 chip-hours" in text
    assert "all-reduce over 16: 12.000 GB in 28, waited for" in text
    assert "interval_attention_forward: 56 calls" in text
    assert "1 whose trips depend on the data, assumed to be 3" in text
    assert "leaves out" in text


def test_of_rollouts_it_says_what_is_held_while_answers_are_decoded():
    held = {"answers_at_once": 64, "rollout_bytes": {"caches": 3 * GIB, "reference": GIB // 2}}
    lines = describe({**REPORT, **held}).splitlines()
    assert (
        "rollouts    64 answers at once: caches 3.0 GiB, reference 512.0 MiB, beside 6.0 GiB of "
        "parameters and optimizer, without the workspace of decoding"
    ) in lines
    alone = describe({**REPORT, **held, "rollout_bytes": {"caches": GIB, "reference": 0}})
    assert "reference" not in alone


def test_small_collectives_are_summed_up_only():
    assert "all-gather" not in describe(REPORT)


def test_what_does_not_fit_says_what_to_change():
    text = describe(TOO_LARGE)
    assert "peak 20.00 of 15.75 GiB per device: DOES NOT FIT" in text
    assert "try mesh.sequence or mesh.tensor, or more chips" in text
    assert "ms per step" not in text


def test_advice_depends_on_what_is_left_to_change():
    loose = {**TOO_LARGE, "remat": "none", "sequences_per_chip": 4.0}
    assert advice(loose).startswith("try compute.remat=full; a smaller --sequences_per_chip")
    replicas = {**TOO_LARGE, "mesh": {"data": 2, "fsdp": 8}}
    assert "mesh.fsdp instead of mesh.data" in advice(replicas)
    state = {**TOO_LARGE["bytes_per_device"], "optimizer": 20 * GIB}
    alone = advice({**TOO_LARGE, "bytes_per_device": state})
    assert alone.startswith("parameters, optimizer and gradients alone take 23.00 GiB")
    gpu = {**TOO_LARGE, "device_kind": "NVIDIA H200"}
    assert "XLA_PYTHON_CLIENT_MEM_FRACTION=0.92" in advice(gpu)
    assert "XLA_PYTHON" not in advice(TOO_LARGE)


def test_a_table_has_a_line_for_each():
    head, good, bad = table([REPORT, TOO_LARGE]).splitlines()
    assert good.split() == [
        "v5e:4x4", "1,16,1,1", "full", "1", "9.00", "15.75",
        "600.0", "50.0", "100.0", "750.0", "2,731", "53.3%",
    ]  # fmt: skip
    assert bad.endswith("does not fit")
    assert len(head) == len(good)
    assert table([{**REPORT, "extrapolated": True}]).endswith("53.3%  extrapolated")


def test_times_that_cannot_be_read_are_left_out_with_the_reason():
    lines = describe({**REPORT, "step_ms": None}).splitlines()
    assert any(line.startswith("times       left out: this jaxlib cannot read") for line in lines)
    a100 = describe({**REPORT, "step_ms": None, "device_kind": "NVIDIA A100-SXM4-80GB"})
    assert "XLA estimates them for GPUs from Hopper on" in a100
    at_hand = {**REPORT, "step_ms": None, "topology": None}
    assert "add --topology v5e:4x4" in describe(at_hand)


def test_a_compiler_that_failed_is_a_row_with_its_first_line():
    unknown = ("peak_hbm_gib", "fits", "step_ms", "compute_ms", "tokens_per_second_per_device")
    failed = {**REPORT, **dict.fromkeys(unknown), "failed": "the compiler failed: Check failed: a"}
    rows = table([REPORT, failed]).splitlines()
    assert rows[2].endswith("  the compiler failed: Check failed: a")
    assert "does not fit" not in rows[2]
    assert describe(failed).endswith("\nthe compiler failed: Check failed: a")
    assert "3,000 parameters" in describe(failed)
