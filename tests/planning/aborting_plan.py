"""`python -m glm_jax.plan` with a compiler that aborts; children import this file too."""

import os
import sys

from glm_jax import cli, plan
from glm_jax.planning import report


def compile_program(config, mesh):
    print("F1126 00:38:45 17 spmd_partitioner.cc:1] Check failed: groups", file=sys.stderr)
    sys.stderr.flush()
    os.abort()


report.compile_program = compile_program

if __name__ == "__main__":
    cli.run(plan.main)
