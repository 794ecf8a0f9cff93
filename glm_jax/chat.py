"""Talks with a chat model, in a terminal or line by line from a pipe.

python -m glm_jax.chat --checkpoint DIR
python -m glm_jax.chat --checkpoint DIR --system 'Answer in one sentence.' --temperature 0.8
echo '床前明月光的下一句是什么？' | python -m glm_jax.chat --checkpoint DIR
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from glm_jax import cli
from glm_jax.errors import UserError

if TYPE_CHECKING:
    from glm_jax.generation.conversation import Conversation

_SAMPLING = ("temperature", "top_k", "top_p", "seed")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    tools = None if args.tools is None else _tools(args.tools)
    options = cli.quantize_options(args)

    from glm_jax.adapters.quantising import Quantize
    from glm_jax.generation.conversation import Conversation
    from glm_jax.generation.language_model import load
    from glm_jax.generation.sampling import Sampling
    from glm_jax.generation.terminal import converse
    from glm_jax.sharding.mesh import make_mesh

    sampling = {name: getattr(args, name) for name in _SAMPLING}
    Sampling(**sampling)  # refuses what it does before a large model is read
    mesh = None if args.mesh is None else make_mesh(args.mesh)
    how = None if options is None else Quantize(**options)
    model = load(args.checkpoint, dtype=args.dtype, mesh=mesh, adapter=args.adapter, quantize=how)
    talk = Conversation(model, (), tools, args.max_new_tokens, **sampling)
    talk.prompt([{"role": "user", "content": "?"}])  # a template that fails does so at once
    if args.system:
        talk.set_system(args.system)
    return converse(talk, _about(talk, args.temperature))


def _about(talk: "Conversation", temperature: float) -> str:
    """The model, and how its publisher would choose ids where the user has not said it."""
    if temperature or not talk.suggested:
        return repr(talk.model)
    options = " ".join(f"--{name} {value}" for name, value in talk.suggested.items())
    return (
        f"{talk.model!r}\nalways the most probable token; generation_config.json suggests {options}"
    )


def _tools(path: Path) -> list[dict[str, object]]:
    """Descriptions of functions, a JSON list of objects."""
    try:
        tools = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot read --tools {path}: {error}") from error
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise UserError(f"--tools {path} must hold a JSON list of objects, one for each function")
    return tools


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m glm_jax.chat",
        description="Talks with a chat model in the format of its tokenizer. In a terminal Ctrl-C "
        "stops an answer, and /help lists the commands; from a pipe every line is a message.",
    )
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=cli.model,
        metavar="DIR",
        help="a Hugging Face directory with its tokenizer, a workdir of glm_jax.train, or one of "
        "its checkpoints",
    )
    cli.add_adapter_argument(parser)
    parser.add_argument("--system", type=cli.text, metavar="TEXT", help="a message of the system")
    parser.add_argument(
        "--tools",
        type=cli.path,
        metavar="FILE",
        help="a JSON list of functions that the model may call; you type their results",
    )
    parser.add_argument(
        "--max_new_tokens",
        type=cli.positive_integer,
        default=512,
        help="length of the longest answer in tokens (default: %(default)s)",
    )
    cli.add_sampling_arguments(parser, "; chat models are often sampled at 0.8")
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16", "float16"),
        help="of the parameters (default: the checkpoint's)",
    )
    cli.add_quantize_arguments(parser, "as they are in the checkpoint")
    parser.add_argument(
        "--mesh",
        type=cli.mesh,
        metavar="AXIS=SIZE,..",
        help="devices of this host that share the model, like fsdp=4 (default: the first device)",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
