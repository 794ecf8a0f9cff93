"""Makes docs/scaling.md of tools/scaling_page.md: `python tools/make_scaling_page.py`.

Compiled figures are kept in docs/scaling.json, with their source; all others are arithmetic
(`glm_jax.planning.scaling`), so the page is made again in seconds. With `--compile NAME` a program
of the list is compiled by `glm_jax.plan` first (minutes each) and its figures replace those kept:

    python tools/make_scaling_page.py --compile ChatGLM2-6B:v5e:8x8
"""

import argparse
import dataclasses
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from glm_jax import load_config
from glm_jax.config import Config
from glm_jax.planning.chips import CHIPS, Tpu
from glm_jax.planning.scaling import Model, Slice, cost_on, model_of, share_reached
from glm_jax.planning.slices import NETWORKS
from glm_jax.training.memory import GIB

ROOT = Path(__file__).resolve().parents[1]
PAGE, KEPT = ROOT / "docs" / "scaling.md", ROOT / "docs" / "scaling.json"
_FLAT = [(4, 4), (4, 8), (8, 8), (8, 16), (16, 16)]
SLICES = {
    "v5e": [*[(sides, 1) for sides in _FLAT], ((16, 16), 2)],
    "v5p": [
        (sides, 1) for sides in [(2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8)]
    ],
    "v6e": [*[(sides, 1) for sides in _FLAT], ((16, 16), 2)],
}
_GLM_10B, _CHATGLM2 = "configs/glm_10b_v5p.py", "configs/chatglm2_6b_v5e.py"
_LAYER_NORM = ["model.norm=layer_norm", "model.biases=all", "model.tied_embeddings=true"]
# Name -> config, overrides, rows of a chip, and what differs from the published model.
RUNS: dict[str, tuple[str, list[str], int, str]] = {
    "GLM-10B": (_GLM_10B, ["compute.remat=full"], 8, "as published"),
    "ChatGLM2-6B": (_CHATGLM2, [], 4, "as published"),
    "ChatGLM-6B": (
        _CHATGLM2,
        [
            *_LAYER_NORM,
            "model.vocab_size=130528",
            "model.num_kv_heads=32",
            "model.mlp_dim=16384",
            "model.activation=gelu",
            "model.residual=scaled_norm",
            "model.position_encoding=rotary_block",
            "model.rotary_fraction=1.0",
            "model.rotary_dtype=float16",
        ],
        4,
        "as published; trained as a causal model here",
    ),
    "GLM-130B": (
        _CHATGLM2,
        [
            *_LAYER_NORM,
            "model.vocab_size=150528",
            "model.num_layers=70",
            "model.embed_dim=12288",
            "model.num_heads=96",
            "model.num_kv_heads=96",
            "model.mlp_dim=32768",
        ],
        1,
        "its dimensions; pre-norm and SwiGLU instead of DeepNorm and GeGLU, causal",
    ),
}
Kept = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description="Makes docs/scaling.md.")
    parser.add_argument("--compile", action="append", default=[], metavar="MODEL:CHIP:SHAPE")
    kept = read()
    for name in parser.parse_args().compile:
        compiled(kept, name)
        KEPT.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    PAGE.write_text(page(kept), encoding="utf-8")
    print(f"wrote {PAGE}")


def read() -> Kept:
    """What was compiled: {"compiled": [{"model": .., "topology": .., "step_ms": .., ..}]}."""
    return json.loads(KEPT.read_text(encoding="utf-8"))


def compiled(kept: Kept, name: str) -> None:
    """Compiles a program by `plan` and keeps its figures; UserError and others end the tool."""
    run, topology = name.split(":", 1)
    file, changes, rows, _ = RUNS[run]
    command = [sys.executable, "-m", "glm_jax.plan", "--json", "--config", file]
    command += ["--topology", topology, "--sequences_per_chip", str(rows)]
    done = subprocess.run(
        command + [part for change in changes for part in ("--set", change)],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    report = json.loads(done.stdout)
    if report["failed"] is not None:
        raise SystemExit(f"{name}: {report['failed']}")
    figures = ("compute_ms", "kernel_ms", "exposed_ms", "step_ms", "peak_hbm_gib")
    found = {figure: report[figure] for figure in figures}
    source = f"plan, {datetime.date.today()}, jax {report['versions']['jax']}"
    row = {"model": run, "topology": topology, "rows": rows, "remat": report["remat"], **found}
    kept["compiled"] = [
        *[
            one
            for one in kept["compiled"]
            if (one["model"], one["topology"], one["rows"]) != (run, topology, rows)
        ],
        row | {"source": source, "used": True},
    ]


def config_of(name: str) -> Config:
    file, changes, _, _ = RUNS[name]
    return load_config(ROOT / file, overrides=changes)


def page(kept: Kept) -> str:
    """The whole page."""
    models = {name: model_of(config_of(name), run[2]) for name, run in RUNS.items()}
    template = (ROOT / "tools" / "scaling_page.md").read_text(encoding="utf-8")
    return template.format(
        models=_models(models),
        compiled=_compiled(kept, models),
        tables="\n\n".join(_tables(kept, models, name) for name in RUNS),
        same_batch=_same_batch(kept, models),
        **_figures(kept, models),
    )


def _row(*cells: object) -> str:
    return "| " + " | ".join(map(str, cells)) + " |"


def _head(*names: str) -> list[str]:
    return [_row(*names), _row(*["---"] * len(names))]


def _models(models: dict[str, Model]) -> str:
    lines = _head("model", "parameters", "rows of a chip x slots", "form")
    for name, model in models.items():
        _, _, rows, form = RUNS[name]
        lines.append(
            _row(name, f"{model.parameters / 1e9:.2f} B", f"{rows} x {model.slots // rows}", form)
        )
    return "\n".join(lines)


def _slice_of(topology: str) -> Slice:
    chip, shape = topology.split(":")
    return Slice(_tpu(chip), tuple(map(int, shape.split("x"))))


def _tpu(name: str) -> Tpu:
    chip = CHIPS[name]
    assert isinstance(chip, Tpu)
    return chip


def _model_of_row(models: dict[str, Model], one: Kept) -> Model:
    model, rows = models[one["model"]], RUNS[one["model"]][2]
    ratio = one["rows"] / rows
    return dataclasses.replace(
        model, slots=int(model.slots * ratio), saved=int(model.saved * ratio)
    )


def share_for(kept: Kept, models: dict[str, Model], name: str, chip: str) -> tuple[float, str]:
    """The share of the peak to reckon with, and the compiled program that it is from.

    That of the model on the chip, else on another; else that of ChatGLM2-6B likewise.
    """
    for model, here in ((name, True), (name, False), ("ChatGLM2-6B", True), ("ChatGLM2-6B", False)):
        for one in kept["compiled"]:
            is_here = one["topology"].startswith(f"{chip}:")
            if "used" in one and one["model"] == model and is_here is here:
                found = _slice_of(one["topology"])
                time = _busy_ms(_model_of_row(models, one), one)
                share = share_reached(_model_of_row(models, one), found.chip, time)
                return share, f"{model} on {one['topology']}"
    raise SystemExit(f"nothing compiled to reckon {name} on {chip} with")


def _busy_ms(model: Model, one: Kept) -> float:
    """Compute and kernels of a compiled step; of one whose kernels were not recorded, the rest."""
    if one["kernel_ms"] is not None:
        return one["compute_ms"] + one["kernel_ms"]
    return one["step_ms"] - cost_on(model, _slice_of(one["topology"]), 1.0).time.waited_ms


def _compiled(kept: Kept, models: dict[str, Model]) -> str:
    names = ("model", "slice", "rows of a chip", "remat", "compute and kernels", "calculated")
    names += ("of it from", "step ms", "calculated", "peak GiB", "at least GiB", "source")
    lines = _head(*names)
    for one in kept["compiled"]:
        model, chips = _model_of_row(models, one), _slice_of(one["topology"])
        share, source = share_for(kept, models, one["model"], chips.chip.name)
        cost = cost_on(model, chips, share)
        lines.append(
            _row(
                *(one["model"], one["topology"], one["rows"], f"`{one['remat']}`"),
                *(_number(_busy_ms(model, one)), _number(cost.time.compute_ms), source),
                *(_number(one["step_ms"]), _number(cost.step_ms)),
                *(_number(one["peak_hbm_gib"], 2), f"{cost.least_gib:.2f}", one["source"]),
            )
        )
    return "\n".join(lines)


def _number(value: float | None, digits: int = 1) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _tables(kept: Kept, models: dict[str, Model], name: str) -> str:
    parts = [f"## {name}, calculated"]
    for chip, slices in SLICES.items():
        share, source = share_for(kept, models, name, chip)
        names = ("chips", "slice", "at least GiB", "compute", "gradients", "gathers not hidden")
        names += ("between slices", "step ms", "tokens/s per chip", "of the peak")
        lines = _head(*names)
        for sides, count in slices:
            lines.append(_calculated(models[name], Slice(_tpu(chip), sides, count), share))
        limit = f"{_tpu(chip).hbm_gib:.2f} GiB"
        parts.append(
            f"{chip} ({limit}), compute at {share:.1%} of the peak ({source}):\n\n"
            + "\n".join(lines)
        )
    return "\n\n".join(parts)


def _calculated(model: Model, chips: Slice, share: float) -> str:
    cost = cost_on(model, chips, share)
    shape = "x".join(map(str, chips.sides))
    name = shape if chips.count == 1 else f"{chips.count} x {shape}"
    size = chips.size * chips.count
    if cost.least_gib > chips.chip.hbm_gib:
        least = f"{cost.least_gib:.2f}, does not fit"
        return _row(size, name, least, *[""] * 7)
    gathers = cost.time.exposed_ms - cost.gradient_ms
    return _row(
        *(size, name, f"{cost.least_gib:.2f}", f"{cost.time.compute_ms:.0f}"),
        *(f"{cost.gradient_ms:.0f}", f"{gathers:.0f}", f"{cost.between_ms:.0f}"),
        *(f"{cost.step_ms:.0f}", f"{cost.tokens_per_second:,.0f}", f"{cost.share_of_peak:.1%}"),
    )


def _same_batch(kept: Kept, models: dict[str, Model]) -> str:
    """A global batch that stays: fewer rows for each chip."""
    config = config_of("ChatGLM2-6B")
    lines = _head("chips", "rows of a chip", "step ms", "tokens/s per chip", "of 64 chips' rate")
    share, _ = share_for(kept, models, "ChatGLM2-6B", "v5e")
    first = None
    for sides, rows in (((8, 8), 4), ((8, 16), 2), ((16, 16), 1)):
        cost = cost_on(model_of(config, rows), Slice(_tpu("v5e"), sides), share)
        rate = cost.tokens_per_second
        first = first or rate
        size = sides[0] * sides[1]
        lines.append(_row(size, rows, f"{cost.step_ms:.0f}", f"{rate:,.0f}", f"{rate / first:.0%}"))
    return "\n".join(lines)


def _figures(kept: Kept, models: dict[str, Model]) -> dict[str, str]:
    """The figures of the last section."""
    six, large = models["ChatGLM2-6B"], models["GLM-130B"]
    share, _ = share_for(kept, models, "ChatGLM2-6B", "v5e")
    small = cost_on(six, Slice(_tpu("v5e"), (8, 8)), share)
    pods = cost_on(six, Slice(_tpu("v5e"), (16, 16), 2), share)
    giant_share, _ = share_for(kept, models, "GLM-130B", "v5e")
    giant = cost_on(large, Slice(_tpu("v5e"), (16, 16), 2), giant_share)
    # Of a pair of chips: 8 rows.
    slots, width, layers = 8 * 2048, 4096, 28
    # Two all-reduces of activations forward, two backward, two more where layers are recomputed.
    tensor = 6 * layers * 2 * slots * width * 2 * (1 / 2)
    return {
        "gradient_ms": f"{small.gradient_ms:.0f}",
        "step_ms": f"{small.step_ms:.0f}",
        "part": f"{small.gradient_ms / small.step_ms:.0%}",
        "pod_ms": f"{pods.gradient_ms:.0f}",
        "between_ms": f"{pods.between_ms:.0f}",
        "between_part": f"{pods.between_ms / pods.step_ms:.1%}",
        "giant_between": f"{giant.between_ms:.0f}",
        "giant_part": f"{giant.between_ms / giant.step_ms:.1%}",
        "giant_gradient": f"{giant.gradient_ms:.0f}",
        "giant_step": f"{giant.step_ms:.0f}",
        "giant_state": f"{large.parameters * 14 / GIB:,.0f}",
        "tensor_gb": f"{tensor / 1e9:.1f}",
        "tensor_ms": f"{tensor / 50e9 * 1e3:.0f}",
        "v5e_rate": f"{NETWORKS['v5e'].bandwidth / 1e9:.0f}",
        "v6e_rate": f"{NETWORKS['v6e'].bandwidth / 1e9:.0f}",
    }


if __name__ == "__main__":
    main()
