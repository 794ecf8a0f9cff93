import io
import subprocess
import sys
import types

import pytest

import glm_jax
from glm_jax.errors import UserError
from glm_jax.generate import fill_text, main, prompt_ids

TOKENIZER = glm_jax.load_tokenizer("bundled")
SPECIAL = TOKENIZER.special


class Filler:
    """Stands for a model: every blank is filled with the same words."""

    tokenizer = TOKENIZER

    def __init__(self, *words):
        self.words, self.asked = words, None

    def fill_blanks(self, ids, **options):
        self.asked = ids, options
        masks = [id_ for id_ in ids if id_ in SPECIAL.masks]
        return [TOKENIZER.encode(word) for word, _ in zip(self.words, masks, strict=True)]


@pytest.fixture
def loaded(monkeypatch):
    """Makes `load` return a Filler and records what was asked for."""
    model = Filler("light", "very good")
    module = types.SimpleNamespace(load=lambda path: model)
    monkeypatch.setitem(sys.modules, "glm_jax.inference.language_model", module)
    return model


def test_a_prompt_is_framed_as_in_training():
    words = TOKENIZER.encode("the [MASK] was", allow_special=True)
    assert prompt_ids(TOKENIZER, "the [MASK] was") == [SPECIAL.cls, *words, SPECIAL.eos]
    assert prompt_ids(TOKENIZER, "the [gMASK]")[-1] == SPECIAL.gmask
    assert prompt_ids(TOKENIZER, "the [MASK]")[-2:] == [SPECIAL.mask, SPECIAL.eos]
    assert prompt_ids(TOKENIZER, "[gMASK] the")[-1] == SPECIAL.eos


def test_blanks_are_filled_in_order_and_marked():
    model = Filler("light", "very good")
    assert fill_text(model, "the [MASK] is [sMASK].\n") == "the [light] is [very good]."
    bold = fill_text(model, "the [MASK] is [sMASK].", bold=True)
    assert bold == "the \033[1mlight\033[0m is \033[1mvery good\033[0m."


def test_the_command_passes_its_options_on(loaded, capsys):
    arguments = ["--checkpoint", "x", "the [MASK] is [MASK].", "--temperature", "0.7"]
    assert main([*arguments, "--top_k", "5", "--top_p", "0.9", "--seed", "3"]) == 0
    assert capsys.readouterr().out == "the [light] is [very good].\n"
    ids, options = loaded.asked
    assert ids == prompt_ids(TOKENIZER, "the [MASK] is [MASK].")
    assert options == {
        "max_new_tokens": 64,
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "seed": 3,
    }


def test_a_prompt_on_standard_input(loaded, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("the [MASK]\nis [MASK]\n"))
    main(["--checkpoint", "x", "-"])
    assert capsys.readouterr().out == "the [light]\nis [very good]\n"


def test_interactive_goes_on_after_a_mistake(loaded, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("no blank\nthe [MASK] is [MASK]\n"))
    assert main(["--checkpoint", "x", "--interactive"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "the [light] is [very good]\n"
    assert "no blank in the prompt" in shown.err


@pytest.mark.parametrize("arguments", [[], ["the [MASK]", "--interactive"]])
def test_there_is_one_prompt(arguments):
    with pytest.raises(UserError, match="--interactive"):
        main(["--checkpoint", "x", *arguments])


def test_a_model_without_a_tokenizer_says_so():
    model = Filler("light")
    model.tokenizer = None
    with pytest.raises(UserError, match=r"no tokenizer.model"):
        fill_text(model, "the [MASK]")


@pytest.mark.processes
@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("no blank here", "error: no blank in the prompt; write [MASK], [gMASK] or [sMASK]\n"),
        ("the [MASK]", "error: no directory 'nowhere'; a model of a hub must be downloaded first"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(prompt, message, tmp_path):
    command = [sys.executable, "-m", "glm_jax.generate", "--checkpoint", "nowhere", prompt]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith(message)
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""
