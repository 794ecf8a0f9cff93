import types

import jax
import pytest

from glm_jax.attention.gpu.device import compute_capability, refuses_device


@pytest.mark.parametrize(
    ("said", "expected"), [("9.0", 9.0), ("12.1", 12.1), ("gfx942", None), (None, None)]
)
def test_the_capability_is_that_of_nvidia(monkeypatch, said, expected):
    device = types.SimpleNamespace(compute_capability=said)
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert compute_capability() == expected


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="says what it says elsewhere")
def test_without_a_gpu_it_says_so():
    assert compute_capability() is None
    assert "needs an NVIDIA GPU; this is for" in refuses_device()
