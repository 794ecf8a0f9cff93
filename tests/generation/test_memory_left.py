import jax

from glm_jax.generation import memory_left


def test_this_machine_says_what_it_has_left(tmp_path):
    found = memory_left.available_bytes(jax.devices("cpu")[0])
    assert found is None or found > 1 << 20
    path = tmp_path / "meminfo"
    path.write_text("MemTotal:  2048 kB\nMemAvailable:   1024 kB\n")
    assert memory_left._of_this_machine(path) == 1 << 20
    assert memory_left._of_this_machine(tmp_path / "none") is None
