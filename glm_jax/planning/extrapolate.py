"""Estimates a model of L layers from two with few: each scanned layer adds the same.

    depth      4      8      28 = 8 + 5 * (8 - 4)
    step ms  130    230     230 + 5 * 100 = 730

Memory is extrapolated likewise: state, saved inputs and gradients grow linearly with the layers.
"""

from collections.abc import Sequence

from jax.sharding import Mesh

from glm_jax.config import Config
from glm_jax.planning.facts import Report, rates, run_facts
from glm_jax.training.state import abstract_state

_LINEAR = (
    "peak_hbm_gib",
    "compute_ms",
    "kernel_ms",
    "waited_ms",
    "overlapped_ms",
    "exposed_ms",
    "step_ms",
    "ideal_ms",
    "memory_ms",
    "collective_gb",
)


def extrapolated(
    config: Config, mesh: Mesh, depths: tuple[int, int], reports: Sequence[Report]
) -> Report:
    """The report of `config` from those of the same run with two smaller depths.

    Args:
      config, mesh: of the full model.
      depths: numbers of layers of the two smaller models.
      reports: of these two; if one of them does not fit, neither does the full model.
    """
    less, more = reports
    steps = (config.model.num_layers - depths[1]) / (depths[1] - depths[0])

    def along(first: float | None, second: float | None) -> float | None:
        return None if first is None or second is None else second + steps * (second - first)

    values = {name: along(less[name], more[name]) for name in _LINEAR}
    facts = run_facts(config, mesh, abstract_state(config, mesh))
    temporaries = along(*(one["bytes_per_device"]["temporaries"] for one in reports))
    slots = config.data.batch_size * config.data.sequence_length / mesh.size
    made = {**more, **facts, **values, "extrapolated": True}
    made["bytes_per_device"] = {**facts["bytes_per_device"], "temporaries": temporaries}
    limit = more["hbm_gib"]
    made["failed"] = less["failed"] or more["failed"]
    fits = less["fits"] and more["fits"]
    made["fits"] = fits and (limit is None or made["peak_hbm_gib"] <= limit)
    if made["failed"] is not None:
        made["fits"] = None
    made |= rates(slots, values["step_ms"], values["ideal_ms"])
    # These cannot be extrapolated.
    made |= dict.fromkeys(("collectives", "kernels", "top"))
    made["compile_seconds"] = sum(one["compile_seconds"] or 0.0 for one in reports)
    return made
