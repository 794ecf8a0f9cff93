"""Types of arrays for annotations: `Float[Array, "B T D"]` is a floating array of three axes.

The axes are the letters of `glm_jax.models.transformer`; "..." are any, "*rows" any that other
arguments share. Within one call a letter stands for one size. Nothing is checked in use. In the
tests jaxtyping's import hook (tests/conftest.py) checks every call in attention, models and losses.
"""

import jax
import numpy as np

# What functions of jnp take: also numpy's arrays, from the host.
Array = jax.Array | np.ndarray
# An array, or its shape and dtype alone.
AbstractArray = Array | jax.ShapeDtypeStruct
