"""Makes the model that the package brings: trains it in two runs, in bfloat16, with its card.

    python tools/make_bundled_model.py [--workdir runs/bundled]

An hour on two cores; stopped, the same command goes on. `glm_jax/bundled/model` gets files of 5 MB
at most, and README.md, which is `bundled_card.md` with what was measured.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax

import glm_jax
from glm_jax.config.files import read_run
from glm_jax.evaluation.tasks import TASKS
from glm_jax.interop.huggingface import save_directory
from glm_jax.interop.save_plan import SaveAs
from glm_jax.models.params import count_params

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "glm_jax" / "bundled" / "model"
CONFIGS = [ROOT / "configs" / name for name in ("bundled.py", "bundled_end.py")]
SHARD_BYTES = 4_900_000

CARD = Path(__file__).with_name("bundled_card.md")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, default=ROOT / "runs" / "bundled")
    args = parser.parse_args()
    workdirs = [args.workdir, args.workdir.with_name(f"{args.workdir.name}_end")]
    changes: list[list[str]] = [[], ["--set", f"train.init_from={args.workdir}"]]
    for config, workdir, change in zip(CONFIGS, workdirs, changes, strict=True):
        command = [sys.executable, "-m", "glm_jax.train", "--config", str(config)]
        subprocess.run([*command, "--workdir", str(workdir), *change], check=True, cwd=ROOT)
    lm = glm_jax.load(workdirs[-1], dtype="bfloat16")
    save_directory(
        OUT,
        lm.config,
        lm.params,
        lm._origin,
        SaveAs(max_shard_bytes=SHARD_BYTES),
        lm.tokenizer,
    )
    saved = glm_jax.load(OUT)
    (OUT / "README.md").write_text(card(saved, workdirs), encoding="utf-8")
    for file in sorted(OUT.iterdir()):
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes")


def card(lm: glm_jax.LanguageModel, workdirs: list[Path]) -> str:
    """The card of a model that was trained in workdirs, one after the other."""
    assert lm.tokenizer is not None
    runs = [facts(workdir) for workdir in workdirs]
    return CARD.read_text(encoding="utf-8").format(
        parameters=count_params(lm.config),
        layers=lm.config.num_layers,
        width=lm.config.embed_dim,
        heads=lm.config.num_heads,
        vocab_size=lm.config.vocab_size,
        length=lm.config.max_positions,
        jax_version=jax.__version__,
        device=device(),
        date=datetime.date.today().isoformat(),
        minutes=sum(run["minutes"] for run in runs),
        first=runs[0],
        second=runs[1],
        **TASKS["blanks"](lm, lm.tokenizer, 50),
    )


def device() -> str:
    """What this process trains on."""
    first = jax.devices()[0]
    return f"{os.cpu_count()} CPU cores" if first.platform == "cpu" else f"one {first.device_kind}"


def facts(workdir: Path) -> dict[str, Any]:
    """What the card says of one run."""
    run, _ = read_run(workdir / "run.json")
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line]
    last = [row for row in rows if "eval/loss" in row][-1]
    kinds = ["", *(f"/{name}" for name in ("span", "sentence", "document", "causal"))]
    rate = statistics.median(row["tokens_per_second"] for row in rows if "tokens_per_second" in row)
    slots = run.train.num_steps * run.data.batch_size * run.data.sequence_length
    total = sum(one.rate for one in run.data.components)
    return {
        "steps": run.train.num_steps,
        "rows": run.data.batch_size,
        "slots": slots / 1e6,
        "rate": rate,
        "minutes": slots / rate / 60,
        "mask_ratio": run.objective.mask_ratio,
        "causal_rate": run.objective.causal_rate,
        "sources": ", ".join(f"{one.rate / total:.0%} {one.source}" for one in run.data.components),
        "losses": " | ".join(shown(last, f"eval/loss{kind}") for kind in kinds),
        "unigram": " | ".join(shown(last, f"eval/unigram_loss{kind}") for kind in kinds),
    }


def shown(row: dict[str, float], name: str) -> str:
    """A loss, or a dash where no target was of its kind."""
    return f"{row[name]:.3f}" if name in row else "-"


if __name__ == "__main__":
    main()
