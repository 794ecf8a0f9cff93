import io
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.generate import main
from glm_jax.generation import language_model
from glm_jax.generation.candidates import Filling
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.paths import checkpoint
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.framing import blanked_ids

TOKENIZER = glm_jax.load_tokenizer("bundled")
SPECIAL = TOKENIZER.special


class Filler:
    """Stands for a model: every blank is filled with the same words."""

    tokenizer = TOKENIZER
    config = ModelConfig()

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
    monkeypatch.setattr(language_model, "load", lambda path, mesh, adapter, quantize: model)
    return model


def test_the_command_passes_its_options_on(loaded, capsys):
    arguments = ["--checkpoint", "x", "the [MASK] is [MASK].", "--temperature", "0.7"]
    arguments += ["--num_beams", "4", "--length_penalty", "0.6"]
    arguments += ["--min_new_tokens", "2", "--no_repeat_ngram", "3"]
    assert main([*arguments, "--top_k", "5", "--top_p", "0.9", "--seed", "3"]) == 0
    assert capsys.readouterr().out == "the [light] is [very good].\n"
    ids, options = loaded.asked
    assert ids == blanked_ids(TOKENIZER, "the [MASK] is [MASK].")
    assert options == {
        "max_new_tokens": 64,
        "temperature": 0.7,
        "top_k": 5,
        "top_p": 0.9,
        "seed": 3,
        "num_beams": 4,
        "length_penalty": 0.6,
        "min_new_tokens": 2,
        "no_repeat_ngram": 3,
    }


def test_one_json_object_a_prompt(loaded, capsys, monkeypatch):
    assert main(["--checkpoint", "x", "the [MASK] is [MASK].", "--json"]) == 0
    shown = capsys.readouterr().out
    assert json.loads(shown) == {
        "prompt": "the [MASK] is [MASK].",
        "text": "the light is very good.",
        "answers": ["light", "very good"],
    }
    monkeypatch.setattr(sys, "stdin", io.StringIO("a [MASK] [MASK]\nb [MASK] [MASK]\n"))
    main(["--checkpoint", "x", "--interactive", "--json"])
    prompts = [json.loads(line)["prompt"] for line in capsys.readouterr().out.splitlines()]
    assert prompts == ["a [MASK] [MASK]", "b [MASK] [MASK]"]


class Searcher(Filler):
    """Finds two ways, the second as good as three times as unlikely."""

    def search_fillings(self, ids, num_beams, **options):
        self.asked = ids, num_beams, options
        return [
            Filling([TOKENIZER.encode(word)], np.log(p))
            for word, p in (("light", 0.6), ("day", 0.2))
        ]


def test_candidates(capsys, monkeypatch):
    model = Searcher()
    monkeypatch.setattr(language_model, "load", lambda path, mesh, adapter, quantize: model)
    arguments = ["--checkpoint", "x", "the [MASK] is", "--candidates", "3"]
    main([*arguments, "--max_new_tokens", "5"])
    assert capsys.readouterr().out == "0.6      the light is\n0.2      the day is\n"
    ids, beams, options = model.asked
    assert (ids, beams) == (blanked_ids(TOKENIZER, "the [MASK] is"), 6)
    assert options == {"max_new_tokens": 5, "min_new_tokens": 0, "no_repeat_ngram": 0}
    main([*arguments, "--json"])
    record = json.loads(capsys.readouterr().out)
    assert [one["text"] for one in record["candidates"]] == ["the light is", "the day is"]
    assert record["candidates"][1] == {
        "text": "the day is",
        "answers": ["day"],
        "probability": pytest.approx(0.2),
    }
    assert (record["text"], record["answers"]) == ("the light is", ["light"])
    with pytest.raises(UserError, match="length_penalty is not for them"):
        main([*arguments, "--length_penalty", "1"])
    with pytest.raises(UserError, match="seed must be 0; got 3"):
        main([*arguments, "--seed", "3"])
    with pytest.raises(UserError, match="--candidates must be at least 1; got 0"):
        main(["--checkpoint", "x", "the [MASK]", "--candidates", "0"])


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


def test_a_trained_causal_model_continues_a_prompt(tmp_path, capsys):
    config = ModelConfig(
        vocab_size=TOKENIZER.vocab_size,
        num_layers=1,
        embed_dim=16,
        num_heads=2,
        position_encoding="rotary",
        max_positions=64,
        initializer_range=0.5,
    )
    params = create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)
    lm = LanguageModel(config, params, TOKENIZER)
    lm.save(tmp_path / "run", format="orbax")
    ids = [SPECIAL.gmask, SPECIAL.start, *TOKENIZER.encode("the light")]
    (answer,) = lm.generate([ids], max_new_tokens=6)
    arguments = ["--checkpoint", str(tmp_path / "run"), "the light", "--max_new_tokens", "6"]
    assert main(arguments) == 0
    expected = TOKENIZER.decode([*ids[2:], *answer], skip_special=True)
    assert capsys.readouterr().out == expected + "\n"
    assert len(expected) > len("the light")


def test_without_a_checkpoint_the_bundled_model_answers(monkeypatch, capsys):
    asked = []
    model = Filler("light")
    monkeypatch.setattr(
        language_model, "load", lambda path, mesh, adapter, quantize: asked.append(path) or model
    )
    assert main(["the [MASK]"]) == 0
    assert capsys.readouterr().out == "the [light]\n"
    assert asked == [checkpoint("bundled")]
    assert main(["--checkpoint", "./bundled", "the [MASK]"]) == 0
    assert asked[-1] == Path("bundled")


def test_a_model_that_fills_blanks_wants_one(loaded):
    with pytest.raises(UserError, match=r"no blank in the prompt; write \[MASK\]"):
        main(["--checkpoint", "x", "no blank here"])


@pytest.mark.processes
def test_a_mistake_is_one_sentence_and_status_2(tmp_path):
    command = [sys.executable, "-m", "glm_jax.generate", "--checkpoint", "nowhere", "the [MASK]"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no directory 'nowhere'; a model of a hub must be")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_adapter_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no directory .*nothing.; give that of an adapter"):
        main(["a [MASK] b", "--adapter", str(tmp_path / "nothing")])
