import jax

from glm_jax.errors import UserError
from glm_jax.training.run import compilations
from glm_jax.training.run.compilations import keep_compilations

OPTION = "jax_compilation_cache_dir"


def test_programs_are_kept_under_the_cache_unless_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(compilations, "cache_directory", lambda: tmp_path)
    before = jax.config.jax_compilation_cache_dir
    try:
        jax.config.update(OPTION, str(tmp_path / "mine"))
        keep_compilations()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
        jax.config.update(OPTION, None)
        keep_compilations()
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "compiled")
    finally:
        jax.config.update(OPTION, before)


def test_without_a_home_nothing_is_kept(monkeypatch):
    def no_home():
        raise UserError("no home directory")

    before = jax.config.jax_compilation_cache_dir
    monkeypatch.setattr(compilations, "cache_directory", no_home)
    try:
        jax.config.update(OPTION, None)
        keep_compilations()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update(OPTION, before)
