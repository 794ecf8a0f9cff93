"""The command: its options reach the server, mistakes are one sentence, and a signal drains it."""

import importlib.util
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import openai
import pytest

import glm_jax
from glm_jax.adapters.quantising import Quantize
from glm_jax.errors import UserError
from glm_jax.generation import language_model
from glm_jax.serve import main
from glm_jax.serving import app, blank_search, scheduler, server
from tests.generation.chat_stand_ins import model
from tests.serving.fakes import FakeDecoder, FakeModel, client, say, until


@pytest.fixture
def started(monkeypatch):
    """What the command comes to, without a model: the arguments of each part."""
    found = {"log": []}

    class Scheduler(FakeDecoder):
        def __init__(self, *args):
            super().__init__(say(""))
            found["scheduler"] = args

        def start(self, warm, on_ready):
            found["log"].append(f"started with {warm}")
            on_ready(1.5)

        def close(self):
            found["log"].append("closed")
            super().close()

    class Server:
        def __init__(self, application, decoder, drain_seconds):
            found["drain"] = drain_seconds

        def run_on(self, listening):
            found["port"] = listening.getsockname()[1]
            return 0

    def load(path, dtype, **options):
        found["load"] = path.name, dtype, options
        return FakeModel()

    def make_app(served, keys, origins, hosts, places):
        found.update(served=served, keys=keys, origins=origins, hosts=hosts)

    monkeypatch.setattr(language_model, "load", load)
    monkeypatch.setattr(blank_search, "warm", lambda served: f"searches of {served.name}")
    monkeypatch.setattr(scheduler, "Scheduler", Scheduler)
    monkeypatch.setattr(server, "Server", Server)
    monkeypatch.setattr(app, "make_app", make_app)
    monkeypatch.delenv("GLM_JAX_API_KEYS", raising=False)
    return found


def test_without_options_it_is_the_bundled_model_on_this_machine_alone(started, capsys):
    assert main(["--port", "0"]) == 0
    assert started["load"] == (
        "model",
        None,
        {"mesh": None, "adapter": None, "quantize": None},
    )
    assert started["scheduler"][1:] == (8, None, 64)
    served = started["served"]
    assert served.name == "bundled"
    assert (served.limits.new_tokens, served.limits.seconds) == (None, 600.0)
    assert (started["keys"], started["origins"]) == ([], [])
    assert "localhost" in started["hosts"]
    assert started["log"] == ["started with searches of bundled", "closed"]
    out = capsys.readouterr().out
    assert out == (
        f"bundled at http://127.0.0.1:{started['port']} (Ctrl-C ends)\n"
        "ready: all is compiled (1.5 s)\n"
    )


def test_options_reach_the_server(started, tmp_path, capsys):
    keys = tmp_path / "keys"
    keys.write_text("abc\n")
    options = ["--slots", "3", "--context", "50", "--queue", "7", "--name", "mine"]
    options += ["--max_new_tokens", "9", "--request_seconds", "5", "--drain_seconds", "2"]
    options += ["--api_key_file", str(keys), "--allow_origin", "https://a", "--allow_origin", "*"]
    options += ["--dtype", "bfloat16", "--quantize", "int8", "--adapter", "y", "--host", "0.0.0.0"]
    assert main(["--checkpoint", str(tmp_path), "--port", "0", *options]) == 0
    _, dtype, others = started["load"]
    assert (dtype, others["quantize"], others["adapter"].name) == ("bfloat16", Quantize(8), "y")
    assert started["scheduler"][1:] == (3, 50, 7)
    served = started["served"]
    assert served.name == "mine"
    assert (served.limits.new_tokens, served.limits.seconds) == (9, 5.0)
    assert (started["keys"], started["origins"]) == (["abc"], ["https://a", "*"])
    assert (started["hosts"], started["drain"]) == ((), 2.0)
    assert capsys.readouterr().err == ""


def test_an_open_server_without_a_key_is_warned_of(started, capsys):
    main(["--port", "0", "--host", "0.0.0.0"])
    assert capsys.readouterr().err.startswith("warning: other machines can reach it, and no key")


def test_a_port_that_is_taken_is_said_before_the_model_is_read(started):
    with server.listen("127.0.0.1", 0) as taken, pytest.raises(UserError, match="cannot listen"):
        main(["--port", str(taken.getsockname()[1])])
    assert "load" not in started


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--slots", "0"),
        ("--context", "-1"),
        ("--queue", "0"),
        ("--max_new_tokens", "0"),
        ("--request_seconds", "-1"),
        ("--port", "x"),
        ("--port", "70000"),
        ("--api_key_file", "/no/such/file"),
        ("--api_key", "secret"),
    ],
)
def test_a_mistake_is_said_before_the_model_is_read(started, option, value):
    with pytest.raises(UserError, match=option.removeprefix("--")):
        main([option, value])
    assert "load" not in started


def test_without_the_extra_it_says_how_to_install_it(started, monkeypatch):
    known = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "fastapi" else known(name)
    )
    with pytest.raises(UserError, match=r"needs fastapi: .* install -e '.*\[serve\]'"):
        main([])


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    """A directory of ChatGLM2's format and random numbers."""
    vocabulary = Path(__file__).parent / "golden" / "chatglm" / "chat" / "tokenizer.model"
    tokenizer = glm_jax.load_tokenizer(vocabulary, kind="chatglm2")
    lm = model(tokenizer, vocab_size=tokenizer.vocab_size, max_positions=1024)
    directory = tmp_path_factory.mktemp("served") / "talker"
    lm.save(directory, format="orbax")
    return directory


def command(*options):
    return subprocess.Popen(
        [sys.executable, "-m", "glm_jax.serve", "--port", "0", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def address_of(process, name):
    """The address that a command says in its first line, before anything is compiled."""
    line = process.stdout.readline()
    address = re.search(r"http://\S+", line)[0]
    assert line == f"{name} at {address} (Ctrl-C ends)\n"
    return address


@pytest.mark.processes
def test_a_stream_ends_after_a_signal_and_then_the_command(talker):
    """Its port is taken for a second server; what is asked before all is compiled waits."""
    with command("--checkpoint", str(talker), "--slots", "2", "--context", "1024") as process:
        address = address_of(process, "talker")
        other = command("--port", address.rpartition(":")[2])
        _, error = other.communicate(timeout=60)
        assert other.returncode == 2
        assert re.fullmatch(r"error: cannot listen at 127\.0\.0\.1 port \d+ .*\n", error)
        api = client(address, timeout=120)
        messages = [{"role": "user", "content": "hello"}]
        # Long enough to be asked during it.
        options = {"max_tokens": 600, "extra_body": {"min_tokens": 600}}
        options["stream_options"] = {"include_usage": True}
        with api.chat.completions.create(
            model="talker", messages=messages, stream=True, **options
        ) as stream:
            chunks = iter(stream)
            found = [next(chunks), next(chunks)]  # the role, and the first text
            process.send_signal(signal.SIGTERM)
            assert until(lambda: httpx.get(f"{address}/health").json()["status"] == "draining")
            with pytest.raises(openai.InternalServerError):
                api.chat.completions.create(model="talker", messages=messages)
            found += chunks
        assert found[-2].choices[0].finish_reason == "length"
        assert found[-1].usage.completion_tokens == 600
        assert process.wait(30) == 0
        assert process.stdout.read().startswith("ready: all is compiled (")
        log = process.stderr.read()
        assert "draining: no new requests" in log
        assert re.search(r"POST /v1/chat/completions 200 \S+ s \d+\+\d+ tokens", log)
        assert "POST /v1/chat/completions 503" in log
        assert "Traceback" not in log


@pytest.mark.processes
@pytest.mark.nightly
def test_the_bundled_model_is_served_until_a_signal():
    with command("--slots", "2") as process:
        address = address_of(process, "bundled")
        assert process.stdout.readline().startswith("ready: all is compiled (")
        (model,) = httpx.get(f"{address}/v1/models").json()["data"]
        assert (model["id"], model["can"]["fill_blanks"]) == ("bundled", True)
        assert httpx.get(f"{address}/health").json()["status"] == "ready"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert "GET /v1/models 200" in process.stderr.read()
