"""Starts the network of a run's processes, before jax touches a device.

    --coordinator HOST:PORT --num_processes N --process_id I    said by hand
    COORDINATOR, NUM_PROCESSES, PROCESS_ID                      or by variables of those names
    a TPU slice, SLURM, Open MPI, Kubernetes                    or found by jax

A single process with none of these starts nothing and waits for nothing.
"""

import argparse
import dataclasses
import hashlib
import importlib.metadata
import os
import re
import socket
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import glm_jax
from glm_jax.checks import finite_number, whole_number
from glm_jax.errors import UserError
from glm_jax.training import failures
from glm_jax.training.meeting import meet

# Behind Google's firewall only some ports are open between the hosts of a slice; jax's newer
# default, 8482, is not one of them (jax issue 35905).
TPU_PORT = 8476
_VARIABLES = {
    "coordinator": "COORDINATOR",
    "num_processes": "NUM_PROCESSES",
    "process_id": "PROCESS_ID",
}


@dataclasses.dataclass(frozen=True)
class Network:
    """The processes of a run.

    Attributes:
      coordinator: HOST:PORT of process 0.
      num_processes, process_id: how many there are, and which one this is.
      local_device_ids: devices of this process; None: all of the host.
    """

    coordinator: str
    num_processes: int
    process_id: int
    local_device_ids: tuple[int, ...] | None = None

    def __post_init__(self):
        host, _, port = self.coordinator.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise UserError(f"--coordinator must be HOST:PORT; got {self.coordinator!r}")
        whole_number("--num_processes", self.num_processes, least=1)
        whole_number("--process_id", self.process_id, 0, self.num_processes - 1)


def network_of(options: argparse.Namespace) -> Network | None:
    """The network that a command's options, the environment or the cluster ask for; None: none.

    Args:
      options: with those of `glm_jax.cli.add_process_arguments`.

    Raises:
      UserError: as of `asked`.
    """
    finite_number("--join_timeout", options.join_timeout, above=0)
    finite_number("--lost_after", options.lost_after, least=5)
    return asked(options.coordinator, options.num_processes, options.process_id) or detected()


def join_for(network: Network, options: argparse.Namespace, same: Mapping[str, object]) -> None:
    """`join` for a command with these options; `same` must be equal on all processes, by name."""
    values = {name: repr(value) for name, value in same.items()}

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    timeouts = {"timeout": options.join_timeout, "lost_after": int(options.lost_after)}
    join(network, values, **timeouts, say=say)


def asked(
    coordinator: str | None,
    num_processes: int | None,
    process_id: int | None,
    variables: Mapping[str, str] = os.environ,
) -> Network | None:
    """The network that options, or else variables of the environment, ask for; None: none does.

    Raises:
      UserError: some are given and others are missing, or a value is out of range.
    """
    given = {"coordinator": coordinator, "num_processes": num_processes, "process_id": process_id}
    names = {name: f"--{name}" for name in given}
    if all(value is None for value in given.values()):
        given = {name: variables.get(variable) or None for name, variable in _VARIABLES.items()}
        names = _VARIABLES
        # One of these names alone may be another program's.
        if given["coordinator"] is None:
            return None
    missing = [names[name] for name, value in given.items() if value is None]
    if missing:
        there = [names[name] for name, value in given.items() if value is not None]
        raise UserError(f"{' and '.join(there)} without {' and '.join(missing)}; give all three")
    return Network(
        str(given["coordinator"]),
        _whole(names["num_processes"], given["num_processes"]),
        _whole(names["process_id"], given["process_id"]),
    )


def _whole(name: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise UserError(f"{name} must be a whole number; got {value!r}") from None


def detected() -> Network | None:
    """The network of the cluster that this process runs in; None: in none, or alone.

    jax knows the clusters; it has no public way to ask without starting.
    """
    from jax._src.clusters import ClusterEnv

    kinds = [kind for kind in ClusterEnv._cluster_types if not kind.opt_in_only_method]
    kind = next((kind for kind in kinds if kind.is_env_present()), None)
    if kind is None or kind.get_process_count() < 2:
        return None
    is_tpu = "tpu" in kind.__name__.lower()
    port = os.environ.get("JAX_COORDINATOR_PORT") or (str(TPU_PORT) if is_tpu else None)
    # jax would give a process the device of its number on its host, one that is alone there too.
    local = None if is_tpu or _one_a_host(os.environ) else kind.get_local_process_id()
    return Network(
        kind.get_coordinator_address(timeout_secs=300, override_coordinator_port=port),
        kind.get_process_count(),
        kind.get_process_id(),
        None if local is None else (local,),
    )


def _one_a_host(variables: Mapping[str, str]) -> bool:
    """Whether SLURM or Open MPI has started one process on each host."""
    # "1(x2)", "1,1" or "2(x3),1": tasks of each node of the step
    tasks = variables.get("SLURM_STEP_TASKS_PER_NODE")
    if tasks is not None:
        return set(re.sub(r"\(x\d+\)", "", tasks).split(",")) == {"1"}
    return variables.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"


def join(
    network: Network,
    about: Mapping[str, str],
    *,
    timeout: float,
    lost_after: int,
    say: Callable[[str], None],
) -> None:
    """Starts the network; returns when all processes have come.

    Args:
      network: of `asked` or `detected`.
      about: what must be the same on all processes, by name; versions are added.
      timeout: seconds that the last process may take to come.
      lost_after: seconds of silence after which a process counts as lost, and the others are ended.
      say: takes lines for the person who waits.

    Raises:
      UserError: on all processes that came: who is missing, came twice, or differs and in what.
    """
    import jax

    versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "glm_jax")}
    said = {"the number of processes": str(network.num_processes), **versions, **about}
    said["the code of glm_jax"] = code_digest()
    meet(
        network.coordinator,
        network.num_processes,
        network.process_id,
        said,
        timeout=timeout,
        say=say,
    )
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # It would take SIGTERM from `run.interrupts`, which knows SIGINT and deadlines too.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        network.coordinator,
        network.num_processes,
        network.process_id,
        local_device_ids=network.local_device_ids,
        heartbeat_timeout_seconds=lost_after,
    )
    failures.listen(_coordinator(), network.process_id, network.num_processes)
    here, all_devices = jax.local_device_count(), jax.device_count()
    say(
        f"process {network.process_id} of {network.num_processes}, {here} of {all_devices} devices "
        f"here, host {socket.gethostname()}"
    )


def code_digest(package: Path = Path(glm_jax.__file__).parent) -> str:
    """A digest of the modules' names and content: two checkouts may have the same version."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(package).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:12]


def _coordinator() -> failures.KeyValues:
    """jax's client of the coordinator, which has no public name."""
    from jax._src.distributed import global_state

    assert global_state.client is not None
    return global_state.client
