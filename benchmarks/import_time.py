"""Seconds that `import glm_jax` takes in a fresh process (goal: under 1 s).

    python benchmarks/import_time.py

The median of several processes, less the start of Python itself; one JSON line last.
"""

import json
import platform
import statistics
import subprocess
import sys
import time

RUNS = 7


def seconds(statement: str) -> float:
    """Median wall time of `python -c statement`."""
    times = []
    for _ in range(RUNS):
        start = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    python = seconds("pass")
    with_import = seconds("import glm_jax")
    result = {
        "benchmark": "import_time",
        "seconds": round(with_import - python, 4),
        "python_start_seconds": round(python, 4),
        "runs": RUNS,
        "versions": {"python": platform.python_version()},
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
