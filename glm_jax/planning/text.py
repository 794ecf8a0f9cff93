"""Formats a report as text, and several reports as a table."""

from collections.abc import Sequence

from glm_jax.models.flops import describe_groups
from glm_jax.planning.estimate import KERNEL_SHARE_OF_PEAK
from glm_jax.planning.facts import Report
from glm_jax.planning.saving import checkpoint_line
from glm_jax.training.memory import GIB, describe_rollouts, readable

_LEFT_OUT = """An estimate from the compiler's own figures; nothing ran. It leaves out the input
pipeline, the host, the network between slices, latency and contention of collectives, and clocks
below their maximum. Use it to rank choices, and a run to decide."""


def describe(report: Report) -> str:
    """A report as text, of a dozen or two lines."""
    mesh = ", ".join(f"{name} {size}" for name, size in report["mesh"].items())
    groups = describe_groups(report["parameters_by_group"], report.get("trained_parameters"))
    lines = [
        f"{name_of(report)}: {report['num_devices']} x {report['device_kind']} ({mesh}), "
        f"remat {report['remat']}",
        f"model       {groups}",
        f"step        {report['batch_size']} rows x {report['sequence_length']} slots, "
        f"{report['sequences_per_chip']:g} rows per chip at a time",
        f"FLOPs       {report['flops_per_token']:.4g} per token, attention over "
        f"{report['attention_density']:.2f} of all pairs",
        *([checkpoint_line(report)] if "save_seconds" in report else []),
        *([report["failed"]] if report["failed"] is not None else _memory_lines(report)),
    ]
    if report["failed"] is not None:
        return "\n".join(lines)
    if report["step_ms"] is not None:
        lines += _time_lines(report)
        if not report["extrapolated"]:
            lines += [*_collective_lines(report), *_cost_lines(report)]
        lines.append(_LEFT_OUT)
    elif report["device_kind"].startswith("NVIDIA"):
        lines.append("times       left out: XLA estimates them for GPUs from Hopper on")
    elif report["fits"] and report["topology"]:
        lines.append(
            "times       left out: this jaxlib cannot read the program that libtpu compiled; "
            "the one for Python 3.12 is newer"
        )
    elif report["fits"]:
        lines.append(
            "times       only compilers for TPUs and Hopper GPUs estimate them; add "
            "--topology v5e:4x4 or h100:8"
        )
    return "\n".join(lines)


def name_of(report: Report) -> str:
    """The name of the topology, or "devices at hand"."""
    return report["topology"] or "devices at hand"


def _memory_lines(report: Report) -> list[str]:
    held = report["bytes_per_device"]
    parts = ", ".join(
        f"{name} {readable(held[name])}"
        for name in ("parameters", "optimizer", "batch", "temporaries")
        if held[name] is not None
    )
    limit = "" if report["hbm_gib"] is None else f" of {report['hbm_gib']:.2f}"
    verdict = "fits" if report["fits"] else "DOES NOT FIT"
    lines = [
        f"memory      peak {report['peak_hbm_gib']:.2f}{limit} GiB per device: {verdict}; {parts}"
        f" (gradients among them {readable(held['gradients'])})"
    ]
    if "rollout_bytes" in report:
        lines.append(_rollout_line(report))
    if not report["fits"]:
        lines.append(f"            {advice(report)}")
    return lines


def _rollout_line(report: Report) -> str:
    """What a device holds while answers are decoded, between steps; the workspace is not known."""
    held, sizes = report["bytes_per_device"], report["rollout_bytes"]
    state = held["parameters"] + held["optimizer"]
    return (
        f"rollouts    {report['answers_at_once']} answers at once: {describe_rollouts(sizes)}, "
        f"beside {readable(state)} of parameters and optimizer, without the workspace of decoding"
    )


def advice(report: Report) -> str:
    """Suggests what to change if a step does not fit."""
    held, limit = report["bytes_per_device"], report["hbm_gib"] or 0
    state = sum(held[name] for name in ("parameters", "optimizer", "gradients")) / GIB
    choices = []
    if state > limit:
        return (
            f"parameters, optimizer and gradients alone take {state:.2f} GiB; split them further "
            "(mesh.fsdp, mesh.tensor), take more chips, or optimizer.name=adafactor"
        )
    if report["remat"] != "full":
        choices.append("compute.remat=full")
    if report["sequences_per_chip"] > 1:
        choices.append("a smaller --sequences_per_chip, or train.accumulation_steps")
    if report["mesh"]["data"] > 1:
        choices.append("mesh.fsdp instead of mesh.data")
    choices.append("mesh.sequence or mesh.tensor, or more chips")
    if report["device_kind"].startswith("NVIDIA"):
        choices.append("XLA_PYTHON_CLIENT_MEM_FRACTION=0.92, for more of the GPU than jax takes")
    return f"try {'; '.join(choices)}"


def _time_lines(report: Report) -> list[str]:
    return [
        f"time        {report['step_ms']:.1f} ms per step = {report['compute_ms']:.1f} compute "
        f"(compiler) + {report['kernel_ms']:.1f} attention kernels (at "
        f"{KERNEL_SHARE_OF_PEAK:.0%} of the peak) + {report['exposed_ms']:.1f} exposed "
        "collectives",
        f"speed       {report['tokens_per_second_per_device']:,.0f} tokens/s per chip, "
        f"{report['model_flops_utilisation']:.1%} of the peak",
        f"            at the peak {report['ideal_ms']:.1f} ms; the state read and written once "
        f"{report['memory_ms']:.1f} ms",
        f"            100 B tokens in {report['chip_hours_for_100b_tokens']:,.0f} chip-hours",
    ]


def _collective_lines(report: Report) -> list[str]:
    lines = [
        f"collectives {report['collective_gb']:.2f} GB per step and chip: "
        f"{report['waited_ms']:.1f} ms waited for, {report['overlapped_ms']:.1f} ms overlapped"
    ]
    for one in report["collectives"]:
        if one["num_bytes"] >= 1e-3 * report["collective_gb"] * 1e9:
            how = "overlapped" if one["overlapped"] else "waited for"
            lines.append(
                f"            {one['kind']} over {one['group_size']}: {one['num_bytes'] / 1e9:.3f} "
                f"GB in {one['count']}, {how}"
            )
    return lines


def _cost_lines(report: Report) -> list[str]:
    loops = report["loops"]
    lines = [f"kernels     {name}: {count} calls" for name, count in report["kernels"].items()]
    if report["kernels_not_timed"]:
        lines.append(f"            not in the time: {', '.join(report['kernels_not_timed'])}")
    if loops["turns_assumed"]:
        lines.append(
            f"loops       {loops['turns_assumed']} whose trips depend on the data, assumed to be "
            f"{loops['assumed_turns']}"
        )
    if loops["windowed"]:
        lines.append(f"            {loops['windowed']} gather a matrix shard by shard")
    if report["broken_estimates"]:
        lines.append(f"            {report['broken_estimates']} absurd estimates left out")
    lines += [f"            {one['ms']:8.2f} ms {one['name']}" for one in report["top"][:8]]
    lines.append(f"compiled    in {report['compile_seconds']:.1f} s")
    return lines


def table(reports: Sequence[Report]) -> str:
    """A table with one line per report."""
    head = (
        f"{'topology':14}{'mesh d,f,t,s':>15}{'remat':>14}{'rows':>6}{'peak GiB':>10}{'of':>8}"
        f"{'compute':>9}{'kernel':>8}{'coll.':>8}{'step ms':>9}{'tok/s/chip':>12}{'MFU':>7}"
    )
    return "\n".join([head, *map(_row, reports)])


def _row(report: Report) -> str:
    def number(name: str, form: str, width: int) -> str:
        value = report[name]
        return ("-" if value is None else format(value, form)).rjust(width)

    mesh = ",".join(map(str, report["mesh"].values()))
    verdict = report["failed"] or ("" if report["fits"] else "does not fit")
    return (
        f"{name_of(report):14}{mesh:>15}{report['remat']:>14}"
        f"{number('sequences_per_chip', 'g', 6)}{number('peak_hbm_gib', '.2f', 10)}"
        f"{number('hbm_gib', '.2f', 8)}{number('compute_ms', '.1f', 9)}"
        f"{number('kernel_ms', '.1f', 8)}{number('exposed_ms', '.1f', 8)}"
        f"{number('step_ms', '.1f', 9)}{number('tokens_per_second_per_device', ',.0f', 12)}"
        f"{number('model_flops_utilisation', '.1%', 7)}"
        f"{verdict and '  ' + verdict}"
        f"{'  extrapolated' if report['extrapolated'] else ''}"
    )
