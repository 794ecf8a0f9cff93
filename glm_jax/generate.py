"""Fills the blanks of a text or, with a causal model, continues it.

python -m glm_jax.generate --checkpoint DIR 'text with [MASK]'
python -m glm_jax.generate --checkpoint DIR_OF_A_CAUSAL_MODEL 'text that goes on'
"""

import argparse
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from glm_jax import cli
from glm_jax.errors import UserError

_OPTIONS = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "num_beams",
    "length_penalty",
    "min_new_tokens",
    "no_repeat_ngram",
)


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.interactive == (args.prompt is not None):
        raise UserError("give one of: a prompt, - for a prompt on standard input, --interactive")
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt

    from glm_jax.inference.language_model import load
    from glm_jax.inference.texts import complete_text

    model = load(args.checkpoint)
    options = {name: getattr(args, name) for name in _OPTIONS}

    def complete(prompt: str) -> None:
        complete_text(model, prompt, write, bold=sys.stdout.isatty(), **options)

    write = functools.partial(print, end="", flush=True)
    if prompt is None:
        return _interact(complete)
    complete(prompt)
    return 0


def _interact(complete: Callable[[str], None]) -> int:
    """A prompt a line, until the end of the input."""
    shown = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            prompt = input(shown)
        except EOFError:
            return 0
        try:
            complete(prompt)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m glm_jax.generate",
        description="Fills the blanks of a text, from left to right, or continues it, if the "
        "checkpoint is of a causal model (ChatGLM2 and later).",
        epilog="[MASK] stands for some words, [sMASK] for a sentence, [gMASK] for a long stretch.",
    )
    parser.add_argument("prompt", nargs="?", help="the text; - reads it from stdin")
    parser.add_argument(
        "--checkpoint",
        required=True,
        type=Path,
        metavar="DIR",
        help="a workdir of glm_jax.train, one of its checkpoints, or a Hugging Face directory",
    )
    parser.add_argument("--interactive", action="store_true", help="a prompt a line from stdin")
    parser.add_argument(
        "--max_new_tokens", type=int, default=64, help="longest answer (default: %(default)s)"
    )
    parser.add_argument(
        "--temperature", type=float, default=0.0, help="0, the default: always the best token"
    )
    parser.add_argument("--top_k", type=int, default=0, help="draw from the best k; 0: from all")
    parser.add_argument(
        "--top_p", type=float, default=1.0, help="draw from the best of this probability together"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the draws")
    parser.add_argument(
        "--num_beams",
        type=int,
        default=1,
        help="follow this many answers at once and give the best; 1, the default: no search",
    )
    parser.add_argument(
        "--length_penalty",
        type=float,
        default=1.0,
        help="of a search: log-probability / length^this decides; 0 likes short answers "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--min_new_tokens", type=int, default=0, help="shortest answer (default: %(default)s)"
    )
    parser.add_argument(
        "--no_repeat_ngram",
        type=int,
        default=0,
        metavar="N",
        help="no N tokens in a row come twice in an answer; 0, the default: they may",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
