"""What decoding needs on one device: weights, cache and workspace, and the time of a step.

    memory    weights + KV cache of all rows + workspace: of a prefill of prompts as long as the
              cache, or of a step, whichever is more. On a CPU steps of few rows have a copy of the
              matrices in tiles too (`glm_jax.generation.tiles`)
    step      the larger of the compiler's cycles over the clock and the bytes that a step reads
              over the memory's bandwidth

Two times, since neither has all: the compiler takes what it fetches ahead into the chip's own
memory for free, and the bandwidth knows no arithmetic. Nothing runs, and nothing is allocated.
"""

import dataclasses
import time

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from glm_jax.adapters.quantised import abstract_quantised, num_bytes
from glm_jax.checks import check_choice
from glm_jax.config import ComputeConfig, Config, MeshConfig
from glm_jax.config.model import ResolvedModel
from glm_jax.errors import UserError
from glm_jax.generation.cache import CHUNK, LayerCache, empty_cache
from glm_jax.generation.prefill import prefill
from glm_jax.generation.slots import feed
from glm_jax.generation.tiles import MOST_ROWS, lay_out
from glm_jax.models.params import abstract_params, bind, count_params
from glm_jax.models.trees import Params, from_paths, to_paths
from glm_jax.models.variants import VARIANTS
from glm_jax.models.weights import is_weight
from glm_jax.planning.apart import Attempts, Report
from glm_jax.planning.chips import chip_of
from glm_jax.planning.facts import memory_limit
from glm_jax.planning.hlo import hlo_cost
from glm_jax.planning.program import needed_bytes, program_text
from glm_jax.planning.topologies import topology_devices
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.memory import GIB

# Keys and values of each layer.
CacheParts = list[tuple[jax.Array, jax.Array]]
STEP = "the larger of compute_ms (the compiler's cycles) and memory_ms (bytes over the bandwidth)"


def published(name: str) -> Config:
    """A config of the published model of that name, computed with in bfloat16.

    Raises:
      UserError: there is none; names those in `VARIANTS`.
    """
    check_choice("--model", name, sorted(VARIANTS))
    return Config(model=VARIANTS[name], compute=ComputeConfig(dtype="bfloat16"))


def attempted_inference(
    config: Config,
    topology: str | None,
    attempts: Attempts,
    *,
    batch_size: int,
    context: int | None,
    quantize: str | None,
) -> Report:
    """The report on a topology of one device, known from before or made now.

    Args:
      config: of a run; its model and compute are used.
      topology: its name; None: the first device of this machine.
      batch_size, context, quantize: of `inference_report`; `context` None: `model.max_positions`.

    Raises:
      UserError: the topology has several devices, or the model fewer positions than the context.
    """
    devices = topology_devices(topology) if topology else jax.devices()[:1]
    if len(devices) > 1:
        raise UserError(
            f"--inference plans for one device; {topology} has {len(devices)}; v5e:1x1 has one"
        )
    model, longest = config.resolved_model, config.model.max_positions
    if model.has_position_table and context is not None and context > longest:
        raise UserError(f"--context {context} is more than the model's {longest} positions")
    sizes: Report = {
        "batch_size": batch_size,
        "context": context or longest,
        "quantize": quantize,
    }
    attempts.say(f"compiling for {topology or 'the device at hand'} ...")

    def compile_it() -> Report:
        mesh = make_mesh(MeshConfig(), devices)
        return inference_report(model, mesh, topology, **sizes)

    failed = {"topology": topology, "failed": None, **sizes}
    return attempts.report(repr((topology, model, sizes)), failed, compile_it)


def inference_report(
    config: ResolvedModel,
    mesh: Mesh,
    topology: str | None,
    *,
    batch_size: int,
    context: int,
    quantize: str | None,
) -> Report:
    """Compiles a step of decoding and reports what it takes.

    Args:
      config: of the model; what is not quantised is held in `compute.dtype`.
      mesh: of one device.
      topology: its name; None: the device of this machine.
      batch_size: rows that are decoded together.
      context: slots of each row in the cache.
      quantize: "int8" or "int4": the matrices of the layers, a scale per output; None: none.

    Returns:
      Times are None where the compiler gives none, `workspace` where the step does not fit,
      `prefill`, the workspace of a prefill, where that does not.
    """
    config = config.with_compute(scan_layers=False)
    device = mesh.devices.flat[0]
    params = inference_params(config, mesh, quantize)
    caches = jax.eval_shape(lambda: _parts(empty_cache(config, batch_size, context)))
    held = {"weights": num_bytes(params), "cache": num_bytes(caches)}
    begin = time.monotonic()
    read, needed_to_read = _compiled_prefill(config, mesh, params, batch_size, context)
    if device.platform == "cpu" and batch_size <= MOST_ROWS:
        params = _on(mesh, jax.eval_shape(lambda params: lay_out(config, params)[1], params))
        config = dataclasses.replace(config, tied_embeddings=False)
        held["tiles"] = sum(
            map(num_bytes, filter(is_weight, jax.tree.leaves(params, is_leaf=is_weight)))
        )
    compiled, needed_to_step = _compiled(config, mesh, params, caches)
    limit = memory_limit(device)
    workspace = None if compiled is None else _workspace(compiled)
    to_read = None if read is None else _workspace(read) - held["cache"]
    most = max(held.get("tiles", 0) + (workspace or 0), to_read or 0)
    planned = held["weights"] + held["cache"] + most
    peak = max(planned, needed_to_read or 0, needed_to_step or 0)
    return {
        "topology": topology,
        "device_kind": device.device_kind,
        "parameters": count_params(config),
        "weights": quantize or config.compute.dtype,
        "batch_size": batch_size,
        "context": context,
        "bytes_per_device": {**held, "workspace": workspace, "prefill": to_read},
        "failed": None,
        "peak_hbm_gib": peak / GIB,
        "hbm_gib": limit,
        "fits": None not in (read, compiled) and (not limit or peak <= limit * GIB),
        **_times(compiled, device, sum(held.values()), batch_size),
        "compile_seconds": time.monotonic() - begin,
    }


def inference_params(config: ResolvedModel, mesh: Mesh, quantize: str | None) -> Params:
    """The shapes of parameters as they are decoded with, layers listed, on a mesh of one device."""
    leaves = to_paths(abstract_params(config, mesh, listed=True))
    for path, leaf in leaves.items():
        if quantize and path.startswith("layers/") and path.endswith("/kernel"):
            leaves[path] = abstract_quantised(path, leaf.shape, quantize, 1)
        else:
            leaves[path] = jax.ShapeDtypeStruct(leaf.shape, config.compute.dtype)
    return _on(mesh, from_paths(leaves))


def _compiled(
    config: ResolvedModel, mesh: Mesh, params: Params, caches: CacheParts
) -> tuple[jax.stages.Compiled | None, int | None]:
    """A step; or None, and the bytes that it would need."""

    def step(
        params: Params, parts: CacheParts, length: jax.Array, token: jax.Array
    ) -> tuple[jax.Array, CacheParts]:
        caches = [LayerCache(keys, values, length) for keys, values in parts]
        model, zeros = bind(config, params), jnp.zeros_like(length)
        logits, caches = feed(model, caches, length, token, length, zeros)
        return jnp.argmax(logits, axis=-1).astype(jnp.int32), _parts(caches)

    rows = jax.ShapeDtypeStruct((caches[0][0].shape[0],), "int32")
    arguments = (params, *_on(mesh, (caches, rows, rows)))
    return _attempt(mesh, jax.jit(step, donate_argnums=1), *arguments)


def _compiled_prefill(
    config: ResolvedModel, mesh: Mesh, params: Params, batch_size: int, context: int
) -> tuple[jax.stages.Compiled | None, int | None]:
    """A prefill of `context` slots of each row, as `Engine.start` runs it; else as `_compiled`."""
    width = context if config.fills_blanks else min(context, CHUNK)
    size = -(-context // width) * width

    def read(params: Params, tokens: jax.Array, length: jax.Array) -> CacheParts:
        model = bind(config, params)
        return _parts(prefill(model, tokens, length, config=config, size=size, width=width))

    tokens = jax.ShapeDtypeStruct((batch_size, size), "int32")
    length = jax.ShapeDtypeStruct((batch_size,), "int32")
    return _attempt(mesh, jax.jit(read), params, *_on(mesh, (tokens, length)))


def _attempt(
    mesh: Mesh, run: jax.stages.Wrapped, *arguments: PyTree
) -> tuple[jax.stages.Compiled | None, int | None]:
    try:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return run.lower(*arguments).compile(), None
    except jax.errors.JaxRuntimeError as error:
        needed = needed_bytes(str(error))
        if needed is None:
            raise
        return None, needed


def _parts(caches: list[LayerCache]) -> CacheParts:
    return [(cache.keys, cache.values) for cache in caches]


def _on(mesh: Mesh, tree: PyTree) -> PyTree:
    """Shapes, placed on the one device of a mesh."""
    where = NamedSharding(mesh, PartitionSpec())
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=where), tree
    )


def _workspace(compiled: jax.stages.Compiled) -> int:
    found = compiled.memory_analysis()
    if found is None:
        raise RuntimeError("this backend does not say how much memory a program takes")
    results = found.output_size_in_bytes - found.alias_size_in_bytes
    return found.temp_size_in_bytes + max(0, results)


def _times(
    compiled: jax.stages.Compiled | None, device: jax.Device, read: int, batch_size: int
) -> Report:
    """Milliseconds of a step that reads `read` bytes."""
    chip, nothing = chip_of(device), dict.fromkeys(("compute_ms", "memory_ms", "step_ms"))
    text = program_text(compiled) if compiled is not None else None
    if chip is None or not chip.is_timed or text is None:
        return {**nothing, "tokens_per_second": None, "assumptions": None}
    compute = 1e3 * hlo_cost(text, 1, chip.clock_hz).seconds
    memory = 1e3 * read / chip.hbm_bandwidth
    step = max(compute, memory)
    return {
        "compute_ms": compute,
        "memory_ms": memory,
        "step_ms": step,
        "tokens_per_second": 1e3 * batch_size / step,
        "assumptions": {"step_ms": STEP},
    }


def describe_inference(report: Report) -> str:
    """The report as text."""
    if report["failed"] is not None:
        return report["failed"]
    held = report["bytes_per_device"]
    named = {**held, "workspace of a step": held["workspace"], "of a prefill": held["prefill"]}
    parts = ", ".join(
        f"{name} {size / GIB:.3f}"
        for name, size in named.items()
        if size is not None and name not in ("workspace", "prefill")
    )
    limit = "" if report["hbm_gib"] is None else f" of {report['hbm_gib']:.2f}"
    lines = [
        f"{report['topology'] or 'devices at hand'}: decoding on one {report['device_kind']}",
        f"model       {report['parameters']:,} parameters, matrices in {report['weights']}",
        f"step        {report['batch_size']} rows, {report['context']} slots each in the cache",
        f"memory      {report['peak_hbm_gib']:.2f}{limit} GiB: {parts}",
    ]
    if not report["fits"]:
        lines.append("            DOES NOT FIT; try --quantize, fewer rows or a shorter --context")
    if report["step_ms"] is not None:
        lines.append(
            f"time        {report['step_ms']:.2f} ms per step, {report['tokens_per_second']:,.0f} "
            f"tokens/s: {report['compute_ms']:.2f} by the compiler's cycles, "
            f"{report['memory_ms']:.2f} to read weights and cache once"
        )
    else:
        lines.append("times       only compilers for TPUs estimate them; add --topology v5e:1x1")
    return "\n".join(lines)
