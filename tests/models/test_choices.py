import jax
import pytest

from glm_jax.config import ComputeConfig
from glm_jax.models.choices import uses_scan


@pytest.mark.parametrize(("platform", "stacked"), [("cpu", False), ("gpu", True), ("tpu", True)])
def test_layers_are_stacked_on_accelerators_unless_the_config_says(monkeypatch, platform, stacked):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    assert uses_scan(ComputeConfig()) == stacked
    for said in (False, True):
        assert uses_scan(ComputeConfig(scan_layers=said)) == said
