import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.batch import Batch
from glm_jax.config import MeshConfig
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.accumulation import sum_over_micro_batches, sum_over_replicas


def of_rows(sites, params, key, rows, scale):
    """A gradient that tells the rows and the key it is of."""
    loss = lambda site: jnp.sum(scale * rows.tokens * (site + params))  # noqa: E731
    return jax.grad(loss)(sites), {"rows": jnp.sum(rows.tokens[:, 0])}


def arguments(count, rows=4):
    fields = {field.name: np.zeros((rows, 3), np.int32) for field in dataclasses.fields(Batch)}
    fields["tokens"] = np.arange(3 * rows).reshape(rows, 3)
    batch = jax.tree.map(jnp.asarray, Batch(**fields))
    scale = jnp.arange(rows, dtype=jnp.float32)[:, None] * jnp.ones(3)
    keys = jax.random.split(jax.random.key(0), count)
    return jnp.float32(0), jnp.float32(1), keys, batch, scale


@pytest.mark.parametrize("count", [1, 2, 4])
def test_micro_batches_add_up_to_the_whole(count):
    gradient, sums = sum_over_micro_batches(of_rows, *arguments(count))
    # Rows 0 1 2 | 3 4 5 | 6 7 8 | 9 10 11, weighted by 0, 1, 2, 3.
    assert float(gradient) == 1 * 12 + 2 * 21 + 3 * 30
    assert int(sums["rows"]) == 0 + 3 + 6 + 9


def find(jaxpr, name):
    """The equations called `name`, with how many loops they lie in."""
    for equation in jaxpr.eqns:
        if equation.primitive.name.startswith(name):
            yield 0
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            if hasattr(inner, "eqns"):
                loop = equation.primitive.name == "scan"
                yield from (depth + loop for depth in find(inner, name))


def test_replicas_are_reduced_once_after_all_micro_batches():
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])

    def run(*args):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return sum_over_replicas(of_rows, *args)

    assert set(find(jax.make_jaxpr(run)(*arguments(2)).jaxpr, "psum")) == {0}
    gradient, sums = jax.jit(run)(*arguments(2))
    assert (float(gradient), int(sums["rows"])) == (144.0, 18)


def test_a_split_leaves_every_row_on_its_device():
    """Rows 0 1 on the first device, 2 3 on the second: micro-batches are 0 2 and 1 3."""
    seen = []

    def record(sites, params, key, rows, scale):
        seen.append(rows.tokens)
        return sites, {}

    with jax.disable_jit():
        sum_over_micro_batches(record, *arguments(2))
    # Shapes are asked for first, without numbers.
    rows = [np.asarray(tokens)[:, 0].tolist() for tokens in seen[-2:]]
    assert rows == [[0, 6], [3, 9]]


def steps_on(meshes, counts, timeout):
    """What `every_mesh.py` prints: {"2,2,2,1": [alike, refused]}."""
    script = Path(__file__).with_name("every_mesh.py")
    command = [sys.executable, script, *meshes, "--", *map(str, counts)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, done.stderr[-3000:]
    found = (line.split(": ") for line in done.stdout.splitlines())
    return {mesh: [int(number) for number in numbers.split()] for mesh, numbers in found}


@pytest.mark.processes
@pytest.mark.nightly
def test_data_fsdp_and_tensor_together_take_micro_batches():
    assert steps_on(["2,2,2,1"], [2], 900) == {"2,2,2,1": [4, 0]}


@pytest.mark.nightly
@pytest.mark.parametrize("count", [1, 2, 4])
def test_every_mesh_of_eight_devices_steps_as_one_device_does(count):
    found = steps_on([], [count], 3600)
    assert len(found) == 20
    # Four heads cannot be split over eight devices; nothing else is refused.
    assert {mesh for mesh, (_, refused) in found.items() if refused} == {"1,1,8,1"}
    assert all(alike + refused == 4 and alike >= 2 for alike, refused in found.values())
