"""Makes the adapter that aligns the bundled model: blanks, GRPO, a LoRA, and its card.

    python tools/make_aligned_model.py [--workdir runs/align/bundled]

Half an hour on two cores; stopped, the same command goes on. `glm_jax/bundled/aligned` gets the
adapter, as PEFT keeps one, and README.md, which is `aligned_card.md` with what was measured.
"""

import argparse
import datetime
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
from make_bundled_model import device

import glm_jax
from glm_jax.config.files import load_config
from glm_jax.evaluation.tasks import TASKS
from glm_jax.models.flops import parameter_groups

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "glm_jax" / "bundled" / "aligned"
CONFIG = ROOT / "configs" / "align" / "bundled_cpu.py"
CARD = Path(__file__).with_name("aligned_card.md")
SAMPLES = 12
KINDS = ("span", "sentence", "document", "causal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, default=ROOT / "runs" / "align" / "bundled")
    args = parser.parse_args()
    blanks = args.workdir.with_name("blanks")
    run(["tools/make_blank_prompts.py", str(blanks)])
    source = ["--set", f"data.source={blanks}/prompts.jsonl"]
    train = ["-m", "glm_jax.train", "--config", str(CONFIG), "--workdir", str(args.workdir)]
    run([*train, *source])
    lm = glm_jax.load("bundled", adapter=args.workdir)
    lm.save(OUT, format="peft")
    (OUT / "README.md").write_text(card(args.workdir, blanks), encoding="utf-8")
    for file in sorted(OUT.iterdir()):
        print(f"{file.relative_to(ROOT)}: {file.stat().st_size:,} bytes")


def run(arguments: list[str]) -> None:
    subprocess.run([sys.executable, *arguments], check=True, cwd=ROOT)


def card(workdir: Path, blanks: Path) -> str:
    """The card of the adapter that was trained in a workdir."""
    config, base = load_config(CONFIG), glm_jax.load("bundled")
    aligned = glm_jax.load("bundled", adapter=OUT)
    assert base.tokenizer is not None
    test = evaluated(
        workdir, "held_out", ["--task", str(blanks / "held_out"), "--compare", "bundled"]
    )
    before, after = (one["tasks"][0] for one in (test["compared_with"], test))
    rows = ["--config", str(ROOT / "configs" / "bundled_end.py")]
    exact = next(one for one in test["differences"] if one["metric"] == "exact")
    low, high = exact["interval"]
    lines = (workdir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return CARD.read_text(encoding="utf-8").format(
        rank=config.lora.rank,
        parameters=parameter_groups(aligned.params)["adapters"],
        prompts=sum(1 for _ in (blanks / "prompts.jsonl").open(encoding="utf-8")),
        steps=config.train.num_steps,
        batch=config.data.batch_size,
        group=config.rollouts.group_size,
        kl_beta=config.policy.kl_beta,
        device=device(),
        jax_version=jax.__version__,
        date=datetime.date.today().isoformat(),
        curve=curve([json.loads(line) for line in lines]),
        before=TASKS["blanks"](base, base.tokenizer, 50),
        after=TASKS["blanks"](aligned, base.tokenizer, 50),
        test_count=len(after["examples"]),
        test_before=shown(before["metrics"]),
        test_after=shown(after["metrics"]),
        length_before=as_long(before["examples"]),
        length_after=as_long(after["examples"]),
        nats_before=nats(evaluated(workdir, "rows_before", rows, adapter=False)["metrics"]),
        nats_after=nats(evaluated(workdir, "rows_after", rows)["metrics"]),
        paired=f"{exact['difference']:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}, "
        f"p {exact['p']:.2g} ({exact['test']})",
        samples=samples(before["examples"], after["examples"]),
    )


def evaluated(
    workdir: Path, name: str, arguments: list[str], adapter: bool = True
) -> dict[str, Any]:
    """What `evaluate` says of the bundled model, with its adapter or without."""
    output = workdir / f"{name}.json"
    model = ["--checkpoint", "bundled", *(["--adapter", str(OUT)] if adapter else [])]
    run(["-m", "glm_jax.evaluate", *model, *arguments, "--output", str(output)])
    return json.loads(output.read_text(encoding="utf-8"))


def curve(rows: list[dict[str, Any]]) -> str:
    """Means over a quarter of the steps, a line each."""
    found = [row for row in rows if "reward" in row]
    size = -(-len(found) // 4)
    lines = []
    for first in range(0, len(found), size):
        part = found[first : first + size]
        means = [
            sum(row[name] for row in part) / len(part)
            for name in ("reward", "length/answer", "kl/k1", "entropy")
        ]
        values = " | ".join(f"{mean:.3f}" for mean in means)
        lines.append(f"| up to {part[-1]['step']} | {values} |")
    return "\n".join(lines)


def shown(metrics: dict[str, Any]) -> dict[str, str]:
    return {
        name: f"{one['value']:.3f} ± {one['standard_error']:.3f}" for name, one in metrics.items()
    }


def as_long(examples: list[dict[str, Any]]) -> float:
    """The share of fillings that have as many words as stood there."""
    same = [len(one["answer"].split()) == len(one["expected"].split()) for one in examples]
    return sum(same) / len(same)


def nats(metrics: dict[str, float]) -> dict[str, float]:
    return {"loss": metrics["loss"], **{kind: metrics[f"loss/{kind}"] for kind in KINDS}}


def samples(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    """The first texts whose filling changed, as a table."""
    lines = ["| text | stood there | bundled | aligned |", "| --- | --- | --- | --- |"]
    for one, other in zip(before, after, strict=True):
        if one["answer"] != other["answer"]:
            words = [one["prompt"], one["expected"], one["answer"], other["answer"]]
            lines.append(f"| {' | '.join(word.replace('|', ' ') for word in words)} |")
    return "\n".join(lines[: SAMPLES + 2])


if __name__ == "__main__":
    main()
