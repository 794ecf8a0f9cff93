"""Serves a model over HTTP, as OpenAI's API does, with a page at /.

python -m glm_jax.serve
python -m glm_jax.serve --checkpoint DIR --port 8000
curl localhost:8000/v1/chat/completions -H 'Content-Type: application/json' \\
  -d '{"messages": [{"role": "user", "content": "hello"}]}'
"""

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from socket import socket

from glm_jax import cli
from glm_jax.errors import UserError, how_to_install
from glm_jax.paths import checkpoint as find

BUNDLED = "bundled"
_NEEDED = ("fastapi", "uvicorn", "prometheus_client")
_AT_ONCE = 130


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(f"a server needs {', '.join(missing)}: {how_to_install('serve')}")
    from glm_jax.serving.safety import keys_from
    from glm_jax.serving.server import listen

    keys = keys_from(args.api_key_file, os.environ)
    # Before a large model is read: the port may be taken.
    with listen(args.host, args.port) as listening:
        return _serve(args, keys, listening)


def _serve(args: argparse.Namespace, keys: list[str], listening: socket) -> int:
    from glm_jax.adapters.quantising import Quantize
    from glm_jax.generation.language_model import load
    from glm_jax.serving.app import make_app
    from glm_jax.serving.blank_search import warm
    from glm_jax.serving.safety import LOOPBACK
    from glm_jax.serving.scheduler import Scheduler
    from glm_jax.serving.served import RequestLimits, Served
    from glm_jax.serving.server import Server, closes, url
    from glm_jax.sharding.mesh import make_mesh

    limits = RequestLimits(new_tokens=args.max_new_tokens, seconds=args.request_seconds)
    options = cli.quantize_options(args)
    how = None if options is None else Quantize(**options)
    mesh = None if args.mesh is None else make_mesh(args.mesh)
    model = load(args.checkpoint, args.dtype, mesh=mesh, adapter=args.adapter, quantize=how)
    scheduler = Scheduler(model, args.slots, args.context, args.queue)
    served = Served(model, scheduler, args.name or _name(args.checkpoint), limits)
    is_local = listening.getsockname()[0] in ("127.0.0.1", "::1")
    app = make_app(
        served,
        keys,
        args.allow_origin,
        LOOPBACK if is_local and not keys else (),
        [str(one) for one in (args.checkpoint, args.adapter) if one is not None],
    )
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    logging.getLogger("glm_jax.serve").setLevel(logging.INFO)
    if not is_local and not keys:
        print("warning: other machines can reach it, and no key is asked for", file=sys.stderr)
    print(f"{served.name} at {url(listening)} (Ctrl-C ends)", flush=True)
    scheduler.start(
        warm(served),
        on_ready=lambda seconds: print(f"ready: all is compiled ({seconds:.1f} s)", flush=True),
    )
    status = Server(app, scheduler, args.drain_seconds).run_on(listening)
    if status == _AT_ONCE or not closes(scheduler):
        sys.stdout.flush()
        os._exit(status)  # Python would wait for the scheduler's thread, or stumble over it
    return status


def _name(checkpoint: Path) -> str:
    """The last name of a model's directory; the package's own has the word it is asked for by."""
    return BUNDLED if checkpoint == find(BUNDLED) else checkpoint.resolve().name


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m glm_jax.serve",
        description="Serves a model over HTTP: OpenAI's API under /v1, blanks under /v1/blanks, a "
        "page at /. Requests join one running batch.",
        epilog="API keys are never options, which every user of the machine could see (ps): they "
        "stand in a file, or in the variable GLM_JAX_API_KEYS.",
    )
    add = parser.add_argument
    add("--checkpoint", default=BUNDLED, type=cli.model, metavar="DIR",
        help="a Hugging Face directory with its tokenizer, a workdir of glm_jax.train, or one of "
        "its checkpoints (default: bundled, the small model of the package)")  # fmt: skip
    cli.add_adapter_argument(parser)
    add("--name", type=cli.text, help="of the model in requests (default: the directory's)")
    add("--host", default="127.0.0.1", help="address to listen at (default: %(default)s, this "
        "machine alone; 0.0.0.0: all)")  # fmt: skip
    add("--port", type=int, default=8000, help="0: any that is free (default: %(default)s)")
    add("--slots", type=cli.positive_integer, default=8, metavar="N",
        help="rows that are decoded together (default: %(default)s)")  # fmt: skip
    add("--context", type=cli.positive_integer, metavar="N",
        help="most tokens of a prompt and its answer (default: the model's)")  # fmt: skip
    add("--queue", type=cli.positive_integer, default=64, metavar="N",
        help="rows that may wait; others are answered with 429 (default: %(default)s)")  # fmt: skip
    add("--max_new_tokens", type=cli.positive_integer, metavar="N",
        help="most tokens of an answer (default: what the context leaves)")  # fmt: skip
    add("--request_seconds", type=cli.positive_number, default=600.0, metavar="S",
        help="of a request; what there is then is the answer (default: %(default)s)")  # fmt: skip
    add("--drain_seconds", type=cli.positive_number, default=30.0, metavar="S",
        help="for running requests to end after a signal (default: %(default)s)")  # fmt: skip
    add("--api_key_file", type=cli.path, metavar="FILE",
        help="API keys, one a line; a request must have one (default: no keys)")  # fmt: skip
    add("--allow_origin", action="append", default=[], metavar="ORIGIN",
        help="a site whose pages may ask, or *; may be repeated")  # fmt: skip
    add("--dtype", choices=("float32", "bfloat16", "float16"),
        help="of the parameters (default: the checkpoint's)")  # fmt: skip
    cli.add_quantize_arguments(parser, "as they are in the checkpoint")
    add("--mesh", type=cli.mesh, metavar="AXIS=SIZE,..",
        help="devices that share the model, like fsdp=4 (default: the first)")  # fmt: skip
    return parser


if __name__ == "__main__":
    cli.run(main)
