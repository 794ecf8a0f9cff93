import subprocess
import sys

import pytest

import glm_jax
from glm_jax.errors import UserError
from glm_jax.tokenizers.tokenizer import load_tokenizer, tokenizer_file
from tests.tokenizers.golden_chat import PIECES, fast_json
from tests.tokenizers.test_published import WORDS


def test_what_lies_nearest_is_read(tmp_path):
    """A vocabulary of 2021 beside a tokenizer.json without GLM-4's tokens; beside one with them."""
    (tmp_path / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (tmp_path / "tokenizer.json").write_text("{}")
    assert load_tokenizer(tmp_path).kind == "glm2021"
    (tmp_path / "tokenizer.json").write_text(fast_json())
    assert load_tokenizer(tmp_path).kind == "glm4"


def test_a_directory_of_our_own_stays_ours(tmp_path):
    load_tokenizer("bundled").save(tmp_path)
    assert load_tokenizer(tmp_path).kind == "sentencepiece"
    assert tokenizer_file(tmp_path) == tmp_path / "tokenizer.model"


def test_options_that_do_not_go_together():
    with pytest.raises(UserError, match="colliding_ids are those of GLM-10B-Chinese"):
        load_tokenizer(PIECES, kind="chatglm2", colliding_ids=True)
    with pytest.raises(UserError, match="no tokenizer of the kind 'glm4' at"):
        load_tokenizer("bundled", kind="glm4")


@pytest.mark.processes
def test_the_bundled_one_needs_neither_templates_nor_the_library():
    code = (
        "import sys, glm_jax; glm_jax.load_tokenizer('bundled')\n"
        "assert not {'jinja2', 'tokenizers'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
    assert glm_jax.load_tokenizer is load_tokenizer
