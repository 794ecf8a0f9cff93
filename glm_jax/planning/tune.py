"""Searches mesh, remat policy and rows per chip for the most tokens per second.

    rows 1, 2, 4, 8, 16 on the config's mesh:   the two remat policies that save most and fit
    the best of them on other meshes:           (fsdp 16), (fsdp 8, tensor 2), (data 2, fsdp 8) ..

The search varies one choice after the other, so it may miss a combination. A program is not
compiled if it cannot fit by arithmetic, or did not fit with fewer rows. The compiler reports a
program that is too large within seconds. With `num_layers`, each program is compiled with that many
layers and with twice as many, and its cost is extrapolated linearly. Only the winner is then
compiled with all layers.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax

from glm_jax.batch import BYTES_PER_SLOT
from glm_jax.config import Config
from glm_jax.config.training import MeshConfig
from glm_jax.errors import UserError
from glm_jax.models.remat import POLICIES
from glm_jax.planning.chips import chip_of
from glm_jax.planning.extrapolate import extrapolated
from glm_jax.planning.facts import Report, memory_limit
from glm_jax.planning.program import prepare
from glm_jax.training.memory import GIB, held_bytes
from glm_jax.training.state import abstract_state

ROWS = (1, 2, 4, 8, 16)
# From most memory to least, which is roughly from fastest to slowest.
REMATS = ("none", *reversed(POLICIES))

Measure = Callable[[Config, jax.sharding.Mesh], Report]


def tune(
    config: Config,
    devices: Sequence[jax.Device],
    measure: Measure,
    sequences_per_chip: int | None = None,
    num_layers: int | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> list[Report]:
    """Searches and returns the reports of all programs, best first; those that do not fit are last.

    A program on which the compiler fails counts as one that does not fit.

    Args:
      config: of the run; its mesh is tried first.
      devices: TPUs or GPUs, of this machine or not.
      measure: compiles a config for a mesh and reports on it (`planning.report.attempted`).
      sequences_per_chip: rows per chip to use; None: `ROWS` are tried.
      num_layers: layers of the smaller of the two models to extrapolate from; None: the whole model
        is compiled.
      say: takes a line per combination.

    Raises:
      UserError: no time estimates for these devices, a mesh or batch that does not fit them, or
        num_layers below 2 or above half the model.
    """
    chip = chip_of(devices[0])
    if chip is None or not chip.is_timed:
        raise UserError(
            "--tune needs the time of a step, which only compilers for TPUs and Hopper GPUs "
            "estimate; add --topology v5e:4x4 or h100:8"
        )
    # The compiler unrolls a loop of one trip, so one layer is nothing to extrapolate from.
    if num_layers is not None and not 2 <= num_layers <= config.model.num_layers // 2:
        raise UserError(
            "--tune_layers must be at least 2 and at most half of model.num_layers="
            f"{config.model.num_layers}; got {num_layers}"
        )
    search = _Search(devices, measure, num_layers, say)
    search.on_mesh(config, sequences_per_chip)
    best = search.best()
    for mesh in other_meshes(config, len(devices)):
        changed = dataclasses.replace(config, mesh=mesh)
        if best is not None:
            search.one(changed, *best)
        elif not search.one(changed, REMATS[-1], sequences_per_chip or 1):
            # Nothing fits so far; try less than a row per device, with rows split over devices.
            search.one(changed, REMATS[-1], 1 / (mesh.tensor * mesh.sequence))
    return search.ranked()


def other_meshes(config: Config, num_devices: int) -> Iterator[MeshConfig]:
    """Meshes whose axes divide the heads, the MLP, the vocabulary and the slots of a row.

    With 16 devices: fsdp 16; tensor 2, 4; sequence 2, 4; data 2; fsdp takes the remaining devices.
    """
    model = config.resolved_model
    yield MeshConfig(data=1, fsdp=-1)
    for size in (2, 4):
        if num_devices % size:
            continue
        split = (model.num_heads, model.mlp_dim, model.vocab_size)
        if not any(number % size for number in split):
            yield MeshConfig(data=1, fsdp=-1, tensor=size)
        if config.data.sequence_length % size == 0:
            yield MeshConfig(data=1, fsdp=-1, sequence=size)
    if num_devices % 2 == 0:
        yield MeshConfig(data=2, fsdp=-1)


class _Search:
    def __init__(
        self,
        devices: Sequence[jax.Device],
        measure: Measure,
        num_layers: int | None,
        say: Callable[[str], None],
    ):
        self.devices, self.measure, self.num_layers = devices, measure, num_layers
        self.say = say
        self.found: dict[tuple, tuple[Config, Report]] = {}

    def on_mesh(self, config: Config, rows: int | None) -> None:
        """For each number of rows, tries the policies that save most until two of them fit."""
        left = list(REMATS)
        for number in ROWS if rows is None else (rows,):
            fitting = 0
            for remat in tuple(left):
                if fitting == 2:
                    break
                if self.one(config, remat, number):
                    fitting += 1
                else:
                    # It will not fit with more rows either.
                    left.remove(remat)

    def one(self, config: Config, remat: str, rows: float) -> bool:
        """Whether a combination fits; compiles it unless that is known."""
        compute = dataclasses.replace(config.compute, remat=remat)
        config = dataclasses.replace(config, compute=compute)
        config, mesh = prepare(config, self.devices, rows)
        key = (tuple(mesh.shape.values()), remat, rows)
        if key in self.found:
            return bool(self.found[key][1]["fits"])
        name = f"mesh {','.join(map(str, key[0]))} remat {remat} rows {rows:g}"
        least = least_bytes(config, mesh)
        limit = memory_limit(self.devices[0]) or 0.0
        if least > limit * GIB:
            self.say(f"{name}: needs {least / GIB:.2f} GiB at least, more than {limit:.2f}")
            return False
        made = self._report(config)
        self.found[key] = config, made
        self.say(f"{name}: {_result(made)}")
        return bool(made["fits"])

    def _report(self, config: Config) -> Report:
        if self.num_layers is None:
            return self._compile(config)
        depths = (self.num_layers, 2 * self.num_layers)
        small = [self._compile(_with_layers(config, depth)) for depth in depths]
        _, mesh = prepare(config, self.devices)
        return extrapolated(config, mesh, depths, small)

    def _compile(self, config: Config) -> Report:
        return self.measure(*prepare(config, self.devices))

    def best(self) -> tuple[str, float] | None:
        """Remat policy and rows of the best program, if it fits."""
        ranked = self._by_rank()
        return ranked[0][0][1:] if ranked and ranked[0][1][1]["fits"] else None

    def ranked(self) -> list[Report]:
        """All reports, best first; compiles an extrapolated winner in full, else the next one."""
        for key, (config, made) in self._by_rank():
            if not made["fits"] or not made["extrapolated"]:
                break
            self.say(f"compiling the best whole, {config.model.num_layers} layers ...")
            whole = self._compile(config)
            self.found[key] = config, whole
            self.say(_result(whole))
            if whole["fits"]:
                return [whole, *(r for _, (_, r) in self._by_rank() if r is not whole)]
        return [made for _, (_, made) in self._by_rank()]

    def _by_rank(self) -> list[tuple[tuple, tuple[Config, Report]]]:
        def rank(item: tuple[tuple, tuple[Config, Report]]) -> tuple[bool, bool, float]:
            made = item[1][1]
            rate = made["tokens_per_second_per_device"] or 0.0
            return made["failed"] is not None, not made["fits"], -rate

        return sorted(self.found.items(), key=rank)


def least_bytes(config: Config, mesh: jax.sharding.Mesh) -> int:
    """A lower bound of bytes per device for any policy: state, gradients, inputs of layers.

    A layer's input is saved for the backward pass under every policy.
    """
    held = held_bytes(config, mesh, abstract_state(config, mesh))
    batch_share = held["batch"] // BYTES_PER_SLOT // config.train.accumulation_steps
    width = 2 if config.compute.dtype == "bfloat16" else 4
    inputs = batch_share * config.model.embed_dim * width * config.model.num_layers
    return sum(held.values()) + inputs


def _with_layers(config: Config, num_layers: int) -> Config:
    return dataclasses.replace(
        config, model=dataclasses.replace(config.model, num_layers=num_layers)
    )


def _result(made: Report) -> str:
    if made["failed"] is not None:
        return made["failed"]
    if not made["fits"]:
        return f"does not fit, {made['peak_hbm_gib']:.2f} GiB"
    mark = " (extrapolated)" if made["extrapolated"] else ""
    return (
        f"{made['tokens_per_second_per_device']:,.0f} tokens/s per chip, "
        f"{made['peak_hbm_gib']:.2f} GiB{mark}"
    )
