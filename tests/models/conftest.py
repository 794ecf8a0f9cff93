"""The fixtures of a model with twelve layers."""

from tests.models.twelve_layers import mesh, params  # noqa: F401
