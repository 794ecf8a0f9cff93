"""The command: its options reach the conversation, and what cannot chat is one sentence."""

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest

import glm_jax
from glm_jax.adapters.quantising import Quantize
from glm_jax.chat import main
from glm_jax.errors import UserError
from glm_jax.generation import language_model, terminal
from tests.cli.in_terminal import Terminal
from tests.generation.chat_stand_ins import Speaker, model

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def held(monkeypatch):
    """The conversation and the introduction that the command comes to; what `load` is asked for."""
    found = {}

    def load(path, **options):
        found["asked"] = str(path), options
        return found.get("model") or Speaker(generation=found.get("generation"))

    monkeypatch.setattr(language_model, "load", load)
    monkeypatch.setattr(
        terminal, "converse", lambda talk, about: found.update(talk=talk, about=about) or 0
    )
    return found


def test_options_reach_the_conversation(held, tmp_path):
    tools = [{"name": "weather", "parameters": {}}]
    (tmp_path / "tools.json").write_text(json.dumps(tools))
    options = ["--system", "Be brief.", "--tools", str(tmp_path / "tools.json"), "--dtype"]
    options += ["bfloat16", "--max_new_tokens", "9", "--temperature", "0.5", "--top_k", "4"]
    options += ["--adapter", "y", "--quantize", "int8"]
    assert main(["--checkpoint", "x", *options, "--top_p", "0.9", "--seed", "3"]) == 0
    expected = {"dtype": "bfloat16", "mesh": None, "adapter": Path("y"), "quantize": Quantize(8)}
    assert held["asked"] == ("x", expected)
    talk = held["talk"]
    assert talk.messages == [{"role": "system", "content": "Be brief."}]
    assert talk.tools == tools
    assert talk._max_new_tokens == 9
    sampling = talk._sampling
    assert (sampling.temperature, sampling.top_k, sampling.top_p, sampling.seed) == (0.5, 4, 0.9, 3)


@pytest.mark.parametrize(
    ("option", "value"), [("--temperature", "-1"), ("--top_p", "0"), ("--max_new_tokens", "0")]
)
def test_an_option_out_of_range_is_refused_before_the_model_is_read(held, option, value):
    with pytest.raises(UserError, match=option.removeprefix("--")):
        main(["--checkpoint", "x", option, value])
    assert "asked" not in held


def test_a_mesh_is_made_of_its_axes(held):
    assert main(["--checkpoint", "x", "--mesh", "tensor=1"]) == 0
    assert dict(held["asked"][1]["mesh"].shape)["tensor"] == 1


def test_without_options_it_is_greedy_and_says_what_the_checkpoint_suggests(held):
    assert main(["--checkpoint", "x"]) == 0
    assert held["talk"]._sampling.greedy
    assert held["about"] == "Speaker"
    held["generation"] = {"do_sample": True, "temperature": 0.8, "top_p": 0.7, "top_k": None}
    assert main(["--checkpoint", "x"]) == 0
    assert held["talk"]._sampling.greedy
    assert "generation_config.json suggests --temperature 0.8 --top_p 0.7" in held["about"]
    assert main(["--checkpoint", "x", "--temperature", "1"]) == 0
    assert held["about"] == "Speaker"
    held["generation"]["do_sample"] = False
    assert main(["--checkpoint", "x"]) == 0
    assert held["about"] == "Speaker"


def test_a_template_that_fails_does_so_before_the_first_message(held, monkeypatch):
    speaker = held["model"] = Speaker()

    def broken(messages, tools=None):
        raise UserError("no chat template")

    monkeypatch.setattr(speaker.tokenizer, "apply_chat_template", broken, raising=False)
    with pytest.raises(UserError, match="no chat template"):
        main(["--checkpoint", "x"])
    assert "talk" not in held


@pytest.mark.parametrize("content", ["{", '{"name": "a"}', "[1]", None])
def test_tools_are_a_list_of_objects(held, tmp_path, content):
    if content is not None:
        (tmp_path / "tools.json").write_text(content)
    with pytest.raises(UserError, match=r"--tools .*tools\.json"):
        main(["--checkpoint", "x", "--tools", str(tmp_path / "tools.json")])
    assert "asked" not in held


def test_a_model_answers_what_is_piped(monkeypatch, capsys):
    lm = model()
    monkeypatch.setattr(language_model, "load", lambda path, **options: lm)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("床\n".encode())))
    assert main(["--checkpoint", "x", "--max_new_tokens", "5"]) == 0
    expected = lm.chat("床", max_new_tokens=5)["content"]
    assert capsys.readouterr().out.strip() == expected


@pytest.mark.processes
def test_what_cannot_chat_is_one_sentence(tmp_path):
    for checkpoint, sentence in (("bundled", "error: "), ("nowhere", "error: no directory")):
        command = [sys.executable, "-m", "glm_jax.chat", "--checkpoint", checkpoint]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, input="a\n")
        assert done.returncode == 2
        assert done.stderr.startswith(sentence)
        assert done.stderr.count("\n") == 1
        assert done.stdout == ""


@pytest.mark.processes
def test_a_saved_model_talks_in_a_terminal(tmp_path):
    """ChatGLM2's format, random numbers: loads, answers, is stopped, goes on, ends."""
    vocabulary = GOLDEN / "chatglm" / "chat" / "tokenizer.model"
    tokenizer = glm_jax.load_tokenizer(vocabulary, kind="chatglm2")
    lm = model(tokenizer, vocab_size=tokenizer.vocab_size, max_positions=4096)
    lm.save(tmp_path / "model", format="orbax")
    arguments = ["--checkpoint", str(tmp_path / "model"), "--max_new_tokens"]
    with Terminal("-m", "glm_jax.chat", *arguments, "3000", JAX_PLATFORMS="cpu") as terminal:
        assert "continues texts" in terminal.until("\n> ")
        terminal.type("hello\n")
        terminal.until("hello\n")
        assert terminal.anything()  # three thousand steps take a while
        terminal.interrupt()
        terminal.until("(stopped")
        terminal.until("> ")
        terminal.type("/exit\n")
        assert terminal.status()[0] == 0
