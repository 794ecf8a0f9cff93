"""Tests of glm_jax.errors."""

import sys
from pathlib import Path

import pytest

from glm_jax import errors
from glm_jax.errors import UserError, did_you_mean, how_to_install, say_once, short, with_causes


def test_nearest_name_is_offered():
    assert did_you_mean("num_layer", ["num_heads", "num_layers"]) == " (did you mean 'num_layers'?)"


def test_nothing_is_offered_when_nothing_is_near():
    assert did_you_mean("zebra", ["num_heads", "num_layers"]) == ""


def test_user_errors_are_value_errors():
    assert issubclass(UserError, ValueError)


def test_an_error_is_followed_by_what_it_came_from():
    first, second, third = KeyError("a"), OSError("b"), ValueError("c")
    second.__context__ = first
    third.__cause__ = second
    assert list(with_causes(third)) == [third, second, first]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A checkout with its environment, which runs."""
    (tmp_path / "glm_jax").mkdir()
    (tmp_path / "setup.cfg").touch()
    monkeypatch.setattr(errors, "__file__", str(tmp_path / "glm_jax" / "errors.py"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / ".venv" / "bin" / "python"))
    return tmp_path


def test_an_extra_is_installed_from_the_checkout(checkout, monkeypatch):
    monkeypatch.chdir(checkout)
    command = ".venv/bin/python -m pip install -e '.[tracking]' -c constraints.txt"
    assert how_to_install("tracking") == command
    assert how_to_install("cache") == ".venv/bin/python -m pip install -e '.[cache]'"


def test_from_another_folder_its_paths_are_whole(checkout, monkeypatch):
    monkeypatch.chdir(Path("/"))
    assert how_to_install("cuda") == (
        f"{checkout}/.venv/bin/python -m pip install -e '{checkout}[cuda]' "
        f"-c {checkout}/constraints.txt"
    )


def test_without_a_checkout_no_registry_is_promised(checkout):
    (checkout / "setup.cfg").unlink()
    assert "'glm_jax[cuda] @ WHERE', from where glm_jax came" in how_to_install("cuda")


def test_no_error_names_a_registry_that_does_not_have_this_package():
    for source in Path(errors.__file__).parent.rglob("*.py"):
        text = source.read_text(encoding="utf-8")
        assert "install 'glm_jax[" not in text or source.name == "errors.py", source


def test_what_costs_is_logged_once_of_each_kind(caplog, monkeypatch):
    monkeypatch.setattr(errors, "_SAID", set())
    for kind, message in (("a", "first"), ("a", "second"), ("b", "third")):
        say_once(kind, message)
    assert caplog.messages == ["first", "third"]
    assert {record.levelname for record in caplog.records} == {"WARNING"}


def test_an_error_stays_short():
    assert short("x" * 1000) == repr("x" * 1000)[:160] + " ..."
    assert short(3) == "3"
