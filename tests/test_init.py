"""Tests of the public namespace."""

import subprocess
import sys

import pytest

import glm_jax


def test_every_public_name_is_there():
    for name in glm_jax.__all__:
        assert getattr(glm_jax, name) is not None, name
        assert name in dir(glm_jax)


def test_batches_is_the_function_whatever_was_imported_first():
    code = "import glm_jax.pipeline.batches, glm_jax; assert callable(glm_jax.batches)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        glm_jax.lode  # noqa: B018
