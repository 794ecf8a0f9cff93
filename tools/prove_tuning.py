"""Whether tuning makes a model better: three proofs, each one command, with a table at its end.

    python tools/prove_tuning.py cloze        tuned against untuned, from scratch, a causal twin
    python tools/prove_tuning.py adapters     LoRA and P-Tuning against full tuning
    python tools/prove_tuning.py forgetting   the loss on texts, with and without texts mixed in

Models of 6.6 M parameters are tuned on 2,000 labelled reviews (`make_reviews.py`), each arm with
the same steps, rows and slots: the bundled model, and for the cloze models that the command
pre-trains (`configs/proofs/glm.py`, `causal.py`), which wants a GPU. The rate of each arm is the
best of three or four, by 400 other reviews and the first seed; the 2,000 reviews of the test are
asked once. A seed is that of tuning, and of pre-training where there is one. What a claim asks for
is in `CLAIMS`; a claim that is missed is printed as missed.

OUT/NAME.md and NAME.json have the table, OUT/results every answer. What is there already is not
made again: a command that was stopped goes on, and several proofs share their runs. Runs that do
not wait for each other go side by side with `--jobs 6`, on a GPU with
`XLA_PYTHON_CLIENT_PREALLOCATE=false`. docs/proofs.md has what was printed.
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import math
import statistics
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from glm_jax import load_config
from glm_jax.evaluation.comparing import differences
from glm_jax.evaluation.results import Result, aligned, as_markdown, read_results
from glm_jax.files import write_whole

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs" / "proofs"
CLAIMS = {
    "cloze": "with every seed the tuned GLM is right more often, p of McNemar's test below 0.05",
    "adapters": "over the seeds, the mean accuracy is at most 0.02 below that of full tuning",
    "forgetting": "over the seeds, the mean held-out loss on texts rises by at most 0.05 nats with "
    "texts mixed in, and by more without",
}
MOST_P, MOST_BELOW, MOST_RISE = 0.05, 0.02, 0.05


@dataclasses.dataclass(frozen=True)
class Arm:
    """A way to the task.

    Attributes:
      config: its file in configs/proofs; None: not tuned.
      base: what it starts from: a model that is pre-trained, by its config's name, or "bundled";
        None: random parameters.
      rates: peak learning rates, of which the best on the validation reviews is taken.
      what: it is, in the table.
    """

    config: str | None
    base: str | None
    rates: tuple[float, ...]
    what: str


ARMS = {
    "full": Arm("review", "glm", (1e-4, 2e-4, 5e-4, 1e-3), "GLM, tuned"),
    "untuned": Arm(None, "glm", (), "GLM, not tuned"),
    "scratch": Arm("review_scratch", None, (2e-4, 5e-4, 1e-3, 2e-3), "GLM, not pre-trained"),
    "causal": Arm("review", "causal", (2e-4, 5e-4, 1e-3, 2e-3), "causal twin, tuned"),
    "bundled": Arm(None, "bundled", (), "bundled model, not tuned"),
    "tuned": Arm("review", "bundled", (1e-4, 2e-4, 5e-4), "bundled model, tuned"),
    "lora": Arm("review_lora", "bundled", (1e-3, 2e-3, 4e-3), "LoRA"),
    "ptuning": Arm("review_ptuning", "bundled", (3e-2, 1e-1, 3e-1), "P-Tuning"),
    # The rate of "tuned": the rows alone are to differ.
    "mixed": Arm("review_mixed", "bundled", (), "tuned, texts mixed in"),
}
PROOFS = {
    "cloze": ("full", "untuned", "scratch", "causal"),
    "adapters": ("tuned", "lora", "ptuning"),
    "forgetting": ("bundled", "tuned", "mixed"),
}


@dataclasses.dataclass(frozen=True)
class Seed:
    """Seeds of a run.

    Attributes:
      pretraining, tuning: of each; their one number names the run, or "0:1" if they are two.
    """

    pretraining: int
    tuning: int

    @classmethod
    def of(cls, text: str) -> "Seed":
        """From "1", or "0:1", the model of seed 0 tuned with seed 1."""
        try:
            first, *other = map(int, text.split(":"))
            return cls(first, *(other or [first]))
        except (ValueError, TypeError) as error:
            raise SystemExit(f"--seeds must be like 0,1 or 0,0:1; got {text!r}") from error

    def __str__(self) -> str:
        both = (self.pretraining, self.tuning)
        return ":".join(map(str, both if self.pretraining != self.tuning else both[:1]))


# A function and its arguments.
Call = tuple[Callable[..., object], tuple[Any, ...]]


class Proofs:
    """The runs and results in a directory, made where they are missing."""

    def __init__(
        self,
        out: Path,
        seeds: Sequence[Seed],
        pretraining: Sequence[str],
        tuning: Sequence[str],
        jobs: int = 1,
    ):
        """Args:
        out: directory of it all.
        seeds: the first one is that by which rates are chosen.
        pretraining, tuning: options of the configs, "train.num_steps=20".
        jobs: commands at once in `prepare`.
        """
        self.out, self.seeds, self.jobs = out, seeds, jobs
        self._pretraining, self._tuning = list(pretraining), list(tuning)
        self._locks: dict[Path, threading.Lock] = collections.defaultdict(threading.Lock)

    def prepare(self, proofs: Sequence[str]) -> None:
        """Makes what the proofs ask for; what they would make one by one, side by side."""
        names = list(dict.fromkeys(name for proof in proofs for name in PROOFS[proof]))
        every = [(name, seed) for name in names for seed in self.seeds]
        bases = {(ARMS[name].base, seed.pretraining) for name, seed in every if ARMS[name].base}
        self._data()
        # What one stage makes, the next ones need.
        self._at_once([(self._trained, one) for one in sorted(bases, key=str)])
        rates = [(name, rate) for name in names for rate in ARMS[name].rates]
        first = self.seeds[0]
        self._at_once([(self._asked, (name, first, rate, "validation")) for name, rate in rates])
        self._at_once([(self._tuned, one) for one in every])
        calls: list[Call] = [(self.tested, one) for one in every]
        if "cloze" in proofs:
            calls += [(self.tested, ("untuned", seed, "calibrated")) for seed in self.seeds]
        if "forgetting" in proofs:
            calls += [(self.loss, one) for one in every if one[0] in PROOFS["forgetting"]]
        self._at_once(calls)

    def _at_once(self, calls: Sequence[Call]) -> None:
        with ThreadPoolExecutor(self.jobs) as pool:
            for future in [pool.submit(call, *arguments) for call, arguments in calls]:
                future.result()

    def rate(self, name: str) -> float:
        """The rate of an arm: the best on the validation reviews; of equal ones the lowest."""
        if name == "mixed":
            return self.rate("tuned")
        found = self.validated(name)
        return max(found, key=lambda rate: (found[rate], -rate))

    def validated(self, name: str) -> dict[float, float]:
        """Accuracy on the validation reviews by rate, with the first seed."""
        return {
            rate: _value(self._asked(name, self.seeds[0], rate, "validation"), "accuracy")
            for rate in ARMS[name].rates
        }

    def tested(self, name: str, seed: Seed, task: str = "test") -> Result:
        """The answers to the reviews of the test."""
        return self._asked(name, seed, self._chosen(name), task)

    def loss(self, name: str, seed: Seed) -> float:
        """Nats per target of the held-out rows of the bundled model's texts, cut as it was."""
        workdir = self._tuned(name, seed)
        file = self._result(name, seed, self._chosen(name), "texts")
        config = ROOT / "configs" / "bundled_end.py"
        self._evaluate(workdir, "glm_pretrain", file, "--config", config)
        return float(json.loads(file.read_text(encoding="utf-8"))["metrics"]["loss"])

    def _chosen(self, name: str) -> float | None:
        return None if ARMS[name].config is None else self.rate(name)

    def _tuned(self, name: str, seed: Seed) -> str | Path:
        """The workdir of an arm with its best rate."""
        return self._run(name, seed, self._chosen(name))

    def _asked(self, name: str, seed: Seed, rate: float | None, task: str) -> Result:
        workdir, file = self._run(name, seed, rate), self._result(name, seed, rate, task)
        self._evaluate(workdir, self._data() / f"{task}.toml", file)
        (found,) = read_results(file)[1]
        return found

    def _result(self, name: str, seed: Seed, rate: float | None, task: str) -> Path:
        return self.out / "results" / f"{self._name(name, seed, rate)}.{task}.json"

    def _name(self, name: str, seed: Seed, rate: float | None) -> str:
        parts: list[object] = [name]
        own = ARMS[name].base not in (None, "bundled")  # a base of that seed
        if ARMS[name].config is None:
            parts += [seed.pretraining] * own
        else:
            parts.append(seed if own else seed.tuning)
        if rate is not None:
            parts.append(f"{rate:g}")
        return "_".join(map(str, parts)).replace(":", "-")

    def _run(self, name: str, seed: Seed, rate: float | None) -> str | Path:
        """The workdir of an arm, trained."""
        arm = ARMS[name]
        base = None if arm.base is None else self._trained(arm.base, seed.pretraining)
        if arm.config is None:
            assert base is not None
            return base
        options = [f"data.source={self._data() / 'train.jsonl'}", f"train.seed={seed.tuning}"]
        options += [f"optimizer.peak_learning_rate={rate}", *self._tuning]
        if base is not None:
            options.append(f"train.init_from={base}")
        return self._train(arm.config, self.out / self._name(name, seed, rate), options)

    def _trained(self, name: str, seed: int) -> str | Path:
        """The workdir of a pre-trained model, or "bundled"."""
        if name == "bundled":
            return name
        options = [f"train.seed={seed}", *self._pretraining]
        return self._train(name, self.out / f"{name}_{seed}", options)

    def _train(self, config: str, workdir: Path, options: Sequence[str]) -> Path:
        """Trains, or goes on; a run that is there with its last step, by this config, is left."""
        file = CONFIGS / f"{config}.py"
        wanted = load_config(file, list(options))
        key = hashlib.sha256(repr(wanted).encode()).hexdigest()
        done = workdir / "proof.json"
        with self._locks[workdir]:
            if done.is_file():
                if json.loads(done.read_text(encoding="utf-8"))["config"] != key:
                    raise SystemExit(f"{workdir} is a run by another config; choose another --out")
                return workdir
            sets = [part for option in options for part in ("--set", option)]
            self._command("train", "--config", file, "--workdir", workdir, *sets)
            write_whole(done, json.dumps({"config": key, "options": list(options)}) + "\n")
        return workdir

    def _evaluate(
        self, workdir: str | Path, task: str | Path, file: Path, *more: str | Path
    ) -> None:
        """Asks a task, unless its answers are there."""
        file.parent.mkdir(parents=True, exist_ok=True)
        with self._locks[file]:
            if not file.is_file():
                named = ["--checkpoint", workdir, "--task", task, "--output", file]
                self._command("evaluate", *named, *more)

    def _command(self, name: str, *arguments: str | Path) -> None:
        command = [sys.executable, "-m", f"glm_jax.{name}", *map(str, arguments)]
        _process(command, at_end=self.jobs > 1)

    def _data(self) -> Path:
        """The directory of the reviews."""
        data = self.out / "data"
        if not (data / "calibrated.toml").is_file():
            _process([sys.executable, str(ROOT / "tools" / "make_reviews.py"), "--out", str(data)])
        return data

    def lines(self, split: str) -> list[dict[str, str]]:
        """The reviews of a split."""
        text = (self._data() / f"{split}.jsonl").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]


def _process(command: Sequence[str], at_end: bool = False) -> None:
    """Runs it; what it prints goes to standard error, `at_end` all at once."""
    line = "$ " + " ".join(["python", *command[1:]])
    if not at_end:
        print(line, file=sys.stderr, flush=True)
    output = subprocess.PIPE if at_end else sys.stderr
    done = subprocess.run(
        command, check=False, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, text=True
    )
    if at_end:
        print(f"{line}\n{done.stdout}", file=sys.stderr, flush=True)
    if done.returncode:
        raise SystemExit(done.returncode)


def _value(result: Result, metric: str) -> float:
    return result.measured()[metric].value


@dataclasses.dataclass(frozen=True)
class Table:
    """What a proof ends with.

    Attributes:
      cells: the heads first.
      notes: below it, one of them the claim.
      verdicts: by arm, whether the claim holds.
    """

    cells: list[list[str]]
    notes: list[str]
    verdicts: dict[str, bool]

    def tell(self, out: Path, name: str) -> None:
        """Prints the table and writes it to `out`."""
        said = [f"{'holds' if holds else 'MISSED'}: {arm}" for arm, holds in self.verdicts.items()]
        notes = [*self.notes, f"claim: {CLAIMS[name]}", *said]
        print(aligned(self.cells) + "\n".join(notes))
        write_whole(out / f"{name}.md", as_markdown(self.cells, notes))
        found: dict[str, Any] = dataclasses.asdict(self) | {"claim": CLAIMS[name]}
        text = json.dumps(found, indent=1, ensure_ascii=False)
        write_whole(out / f"{name}.json", text + "\n")


def compared(proofs: Proofs, arms: Sequence[str]) -> tuple[list[list[str]], dict[str, list[Any]]]:
    """The cells of arms beside the first of them, and the differences by arm and seed."""
    cells = [["seed", "arm", "rate", "accuracy", "standard error", "to the first", "95 % interval"]]
    cells[0].append("p")
    found: dict[str, list[Any]] = {name: [] for name in arms[1:]}
    for seed in proofs.seeds:
        first = proofs.tested(arms[0], seed)
        for name in arms:
            result = proofs.tested(name, seed)
            measured = result.measured()["accuracy"]
            rate = "-" if ARMS[name].config is None else f"{proofs.rate(name):g}"
            row = [str(seed), ARMS[name].what, rate, f"{measured.value:.4f}"]
            row.append(f"{measured.standard_error:.4f}")
            if name == arms[0]:
                cells.append([*row, "", "", ""])
                continue
            one = differences([first], [result])[result.task, "accuracy"]
            found[name].append(one)
            interval = f"{one.low:+.4f} to {one.high:+.4f}"
            cells.append([*row, f"{one.difference:+.4f}", interval, f"{one.p:.2g}"])
    return cells, found


def cloze(proofs: Proofs) -> Table:
    """Tuned against untuned, from scratch, and the twin."""
    cells, found = compared(proofs, PROOFS["cloze"])
    verdicts = {
        f"tuned above {ARMS[name].what}": all(one.difference < 0 and one.p < MOST_P for one in some)
        for name, some in found.items()
    }
    calibrated = [
        f"{_value(proofs.tested('untuned', seed, 'calibrated'), 'accuracy_unconditional'):.4f}"
        for seed in proofs.seeds
    ]
    counts = characters(proofs.lines("train"), proofs.lines("test"))
    return Table(
        cells,
        [
            "not tuned, less the two words' scores without a review: " + ", ".join(calibrated),
            f"for scale, characters counted in the same reviews (naive Bayes): {counts:.4f}",
            *_rates(proofs, PROOFS["cloze"]),
        ],
        verdicts,
    )


def adapters(proofs: Proofs) -> Table:
    """LoRA and P-Tuning against full tuning."""
    cells, found = compared(proofs, PROOFS["adapters"])
    means = {name: _mean([one.difference for one in some]) for name, some in found.items()}
    return Table(
        cells,
        [
            *(f"{ARMS[name].what}: {mean:+.4f} on average" for name, mean in means.items()),
            *_rates(proofs, PROOFS["adapters"]),
        ],
        {ARMS[name].what: mean >= -MOST_BELOW for name, mean in means.items()},
    )


def forgetting(proofs: Proofs) -> Table:
    """The loss on texts before, after tuning, and after tuning with texts mixed in."""
    cells = [["seed", "arm", "loss on texts", "rise", "accuracy", "standard error"]]
    rises: dict[str, list[float]] = {name: [] for name in PROOFS["forgetting"]}
    for seed in proofs.seeds:
        before = proofs.loss("bundled", seed)
        for name, some in rises.items():
            loss = proofs.loss(name, seed)
            some.append(loss - before)
            measured = proofs.tested(name, seed).measured()["accuracy"]
            row = [str(seed), ARMS[name].what, f"{loss:.4f}", f"{some[-1]:+.4f}"]
            cells.append([*row, f"{measured.value:.4f}", f"{measured.standard_error:.4f}"])
    mixed, full = _mean(rises["mixed"]), _mean(rises["tuned"])
    return Table(
        cells,
        [
            f"rise on average: {full:+.4f} without texts, {mixed:+.4f} with",
            "loss: nats per target of all held-out rows of the bundled text, as in bundled_end.py",
        ],
        {"texts mixed in keep the loss": mixed <= MOST_RISE and full > mixed},
    )


def characters(train: Sequence[dict[str, str]], test: Sequence[dict[str, str]]) -> float:
    """Accuracy of naive Bayes over single characters, each count with one added.

    Args:
      train, test: lines {"text": .., "label": ..}; labels are equally frequent.
    """
    counts: dict[str, collections.Counter[str]] = {}
    for line in train:
        counts.setdefault(line["label"], collections.Counter()).update(line["text"])
    known = len(set().union(*counts.values())) + 1
    totals = {label: some.total() + known for label, some in counts.items()}

    def score(label: str, text: str) -> float:
        return sum(math.log((counts[label][c] + 1) / totals[label]) for c in text)

    right = [
        max(counts, key=lambda one: score(one, line["text"])) == line["label"] for line in test
    ]
    return sum(right) / len(right)


def _rates(proofs: Proofs, arms: Sequence[str]) -> list[str]:
    """Lines "GLM, tuned: on the validation reviews 0.7 at 0.0003, ..", for arms with rates."""
    lines = []
    for name in arms:
        found = proofs.validated(name).items()
        if found:
            said = ", ".join(f"{value:.4f} at {rate:g}" for rate, value in found)
            lines.append(f"{ARMS[name].what}: on the validation reviews {said}")
    return lines


def _mean(values: Sequence[float]) -> float:
    """To the four digits that are printed, by which a claim holds or not."""
    return round(statistics.mean(values), 4)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Proves what tuning does, on labelled reviews.")
    parser.add_argument("proof", choices=sorted(PROOFS), nargs="+")
    parser.add_argument("--out", type=Path, default=Path("runs/proofs"))
    parser.add_argument(
        "--seeds",
        default="0,1",
        help="0:1 tunes the model of seed 0 with seed 1 (default: %(default)s)",
    )
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side (default: 1)")
    for name in ("pretraining", "tuning"):
        parser.add_argument(
            f"--set_{name}",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help=f"an option of the configs of {name}, train.num_steps=20",
        )
    args = parser.parse_args(argv)
    seeds = [Seed.of(text) for text in args.seeds.split(",")]
    out = args.out.resolve()
    proofs = Proofs(out, seeds, args.set_pretraining, args.set_tuning, args.jobs)
    proofs.prepare(args.proof)
    tables = {"cloze": cloze, "adapters": adapters, "forgetting": forgetting}
    for name in args.proof:
        tables[name](proofs).tell(out, name)


if __name__ == "__main__":
    main()
