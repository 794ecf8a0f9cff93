"""Compiled programs are kept on disk, for the starts to come."""

from glm_jax.errors import UserError
from glm_jax.paths import cache_directory


def keep_compilations() -> None:
    """Turns on jax's compilation cache, so that later starts reuse compiled programs."""
    import jax

    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        try:
            compiled = cache_directory() / "compiled"
        except UserError:
            return  # No home directory, as in some containers: every start compiles.
        jax.config.update("jax_compilation_cache_dir", str(compiled))
