"""What `evaluate` prints and writes of the metrics of a registered task."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from glm_jax.evaluation.metrics_with_files import MetricsWithFiles
from glm_jax.evaluation.results import MARKDOWN, as_markdown
from glm_jax.files import write_whole


def tell(
    task: str, metrics: Mapping[str, float], line: str, checkpoint: Path, output: Path | None
) -> None:
    """Prints the metrics, one per line, and writes them to a file.

    Args:
      task: its name.
      metrics: by name; a `MetricsWithFiles` writes a directory.
      line: on the data and the units, to standard error; empty: none.
      checkpoint: what was evaluated.
      output: a table if it ends in .md, else JSON; None: nothing is written.
    """
    if line:
        print(f"{task}: {line}", file=sys.stderr)
    for key, value in metrics.items():
        print(f"{key:<24} {value:.6g}")
    if output is None:
        return
    if isinstance(metrics, MetricsWithFiles):
        metrics.write(output)
    elif output.suffix == MARKDOWN:
        cells = [["metric", "value"], *([key, f"{v:.6g}"] for key, v in metrics.items())]
        write_whole(output, as_markdown(cells, [line] if line else []))
    else:
        result = {"checkpoint": str(checkpoint), "task": task, "metrics": metrics}
        write_whole(output, json.dumps(result, indent=2) + "\n")
