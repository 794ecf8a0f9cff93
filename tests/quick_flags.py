"""XLA flags by which programs of tests compile faster; for processes that never load libtpu."""

import importlib.metadata
import os

# XLA's earlier way from fusions to LLVM, in one piece: half the time to compile on two cores.
_QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
# A flag that XLA does not know ends the process, so this is for the version they were tried with.
QUICK = _QUICK if importlib.metadata.version("jaxlib") == "0.10.2" else ""


def with_quick_flags() -> dict[str, str]:
    """The environment of a process that computes on CPU alone."""
    return {**os.environ, "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {QUICK}"}
