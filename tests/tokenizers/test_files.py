import pytest

from glm_jax.errors import UserError
from glm_jax.tokenizers.files import TokenizerFiles
from glm_jax.tokenizers.settings import read_settings
from tests.tokenizers.golden_chat import RANKS, directory


def of(path):
    return TokenizerFiles.of(path / "tokenizer.model", "tokenizer.model")


def test_what_lies_beside_a_vocabulary_is_kept(tmp_path):
    path = directory(
        tmp_path / "a", RANKS, "tokenizer.model", tokenizer_config={"a": 1}, config={"b": 2}
    )
    (path / "secret.txt").write_text("x")
    files = of(path)
    assert (files.config, files.model_config) == ({"a": 1}, {"b": 2})
    (tmp_path / "b").mkdir()
    files.save(tmp_path / "b", "glm4")
    assert {one.name for one in (tmp_path / "b").iterdir()} == {
        *("tokenizer.model", "tokenizer_config.json", "glm_tokenizer.json")
    }
    assert read_settings(tmp_path / "b").kind == "glm4"
    assert of(tmp_path / "b").vocabulary == files.vocabulary


def test_templates(tmp_path):
    path = directory(tmp_path, RANKS, "tokenizer.model")
    assert of(path).templates() == {}
    named = [{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}]
    directory(path, RANKS, "tokenizer.model", tokenizer_config={"chat_template": named})
    assert [one.source for one in of(path).templates().values()] == ["a", "b"]
    directory(path, RANKS, "tokenizer.model", tokenizer_config={"chat_template": "c"})
    assert of(path).templates()["default"].source == "c"
    directory(path, RANKS, "tokenizer.model", template="d")
    assert of(path).templates()["default"].source == "d"
    assert "chat_template.jinja" in of(path).templates()["default"].name


@pytest.mark.parametrize("template", [3, [3], [{"name": "default"}], {"default": "a"}])
def test_a_template_of_another_type_is_refused(tmp_path, template):
    config = {"chat_template": template}
    path = directory(tmp_path, RANKS, "tokenizer.model", tokenizer_config=config)
    with pytest.raises(UserError, match="must be a text, or a list of"):
        of(path).templates()


def test_what_is_not_utf_8_is_refused(tmp_path):
    path = directory(tmp_path, RANKS, "tokenizer.model", template="")
    (path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"chat_template\.jinja of .* is not UTF-8"):
        of(path).templates()
