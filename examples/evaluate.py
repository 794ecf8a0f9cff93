"""A model before and after a change, on a task of your own: a table, and what of it is chance.

    python examples/evaluate.py [--task DIRECTORY]

`examples/tasks/cloze.toml` and `cloze.jsonl` are such a task. The change is 4-bit quantisation
here; after a training, load its workdir instead.

It prints (shortened)

    task   examples  metric                  baseline  checkpoint  difference  95 % interval  p
    cloze       100  accuracy                    0.94        0.94          +0  +0 to +0       1
    cloze       100  accuracy_per_token          0.95        0.95          +0  +0 to +0       1
    cloze       100  accuracy_per_character      0.91         0.9       -0.01  -0.03 to +0    1
    Pharaoh’s daughter came down to [MASK] at the river.  shepherds -> they, expected bathe
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import glm_jax
from glm_jax.evaluation import comparing
from glm_jax.evaluation.results import aligned, run_tasks
from glm_jax.evaluation.task_files import read_tasks

TASK = Path(__file__).parent / "tasks" / "cloze.toml"


def main(argv: Sequence[str] | None = None) -> comparing.Differences:
    """Returns the differences, by task and metric."""
    parser = argparse.ArgumentParser(description="Compares a model before and after a change.")
    parser.add_argument("--task", type=Path, default=TASK, help="a directory of tasks, or a .toml")
    parser.add_argument("--num_examples", type=int, default=100)
    args = parser.parse_args(argv)

    tasks = read_tasks(args.task, args.num_examples)
    before = run_tasks(glm_jax.load("bundled"), tasks)
    after = run_tasks(glm_jax.load("bundled", quantize="int4"), tasks)

    # Example by example: what both do alike says nothing of a difference.
    found = comparing.differences(before, after)
    print(aligned(comparing.as_table(before, after, found)), end="")
    for one, other in zip(before[0].shown, after[0].shown, strict=True):
        if one.answer != other.answer:
            print(f"{one.prompt}  {one.answer} -> {other.answer}, expected {one.expected}")
    return found


if __name__ == "__main__":
    main()
