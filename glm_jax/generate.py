"""Fills the blanks of a text or, with a causal model, continues it.

python -m glm_jax.generate 'text with [MASK]'
python -m glm_jax.generate --checkpoint DIR 'text with [MASK]'
python -m glm_jax.generate --checkpoint DIR 'text with [MASK]' --candidates 5 --json
python -m glm_jax.generate --checkpoint DIR_OF_A_CAUSAL_MODEL 'text that goes on'
"""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from glm_jax import cli
from glm_jax.errors import UserError
from glm_jax.training.run.processes import load_options, run_alike

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel

# `print`, or what stands for it on processes that show nothing.
Show = Callable[..., None]

# Defaults without --candidates; the search for candidates has its own.
_WITHOUT_CANDIDATES = {"num_beams": 1, "length_penalty": 1.0}


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.interactive == (args.prompt is not None):
        raise UserError("give one of: a prompt, - for a prompt on standard input, --interactive")
    if args.candidates is not None and args.candidates < 1:
        raise UserError(f"--candidates must be at least 1; got {args.candidates}")
    return run_alike(lambda: _generate(args), args)


def _generate(args: argparse.Namespace) -> int:
    from glm_jax.training.distributed import is_first, share

    if share()[1] > 1 and args.prompt in (None, "-"):
        raise UserError("of several processes none has the standard input of all: give the prompt")
    prompt = cli.read_input() if args.prompt == "-" else args.prompt

    from glm_jax.generation.language_model import load

    model = load(args.checkpoint, **load_options(args))
    show = functools.partial(print, flush=True) if is_first() else _silent
    answer = functools.partial(_answer, model, args, show)
    if prompt is None:
        return _interact(answer)
    answer(prompt)
    return 0


def _silent(*parts: object, end: str = "") -> None:
    """Shows nothing: only the first process does."""


def _answer(model: "LanguageModel", args: argparse.Namespace, show: Show, prompt: str) -> None:
    """Shows the answer to one prompt: as text, as candidates or as JSON."""
    from glm_jax.generation.texts import answer_record, complete_text, fill_candidates

    options = {name: getattr(args, name) for name in cli.DECODING}
    if args.candidates is not None:
        # Options that were not given are left to `fill_candidates`.
        options = {name: value for name, value in options.items() if value is not None}
    else:
        options |= {n: value for n, value in _WITHOUT_CANDIDATES.items() if options[n] is None}
    if args.json:
        record = answer_record(model, prompt, args.candidates, **options)
        show(json.dumps(record, ensure_ascii=False))
    elif args.candidates is not None:
        for one in fill_candidates(model, prompt, args.candidates, **options):
            show(f"{one.probability:<8.3g} {one.text}")
    else:
        write = functools.partial(show, end="")
        complete_text(model, prompt, write, bold=sys.stdout.isatty(), **options)


def _interact(answer: Callable[[str], None]) -> int:
    """Answers one prompt per line, until the end of the input."""
    shown = "> " if sys.stdin.isatty() else ""
    while True:
        print(shown, end="", flush=True)
        try:
            prompt = cli.read_line()
            if prompt is None:
                return 0
            answer(prompt)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m glm_jax.generate",
        description="Fills the blanks of a text, from left to right; or continues the text, if the "
        "checkpoint is of a causal model (ChatGLM2 and later).",
        epilog="[MASK] stands for some words, [sMASK] for a sentence, [gMASK] for a long text.",
    )
    parser.add_argument(
        "prompt", nargs="?", type=cli.text, help="the text, in quotes; - reads it from stdin"
    )
    parser.add_argument(
        "--checkpoint",
        default="bundled",
        type=cli.model,
        metavar="DIR",
        help="a workdir of glm_jax.train, one of its checkpoints, or a Hugging Face directory "
        "(default: bundled, the small model of the package: English and Chinese of old books)",
    )
    cli.add_adapter_argument(parser)
    parser.add_argument("--interactive", action="store_true", help="one prompt per line from stdin")
    cli.add_decoding_arguments(parser)
    cli.add_mesh_argument(parser)
    cli.add_quantize_arguments(parser, "as they are in the checkpoint")
    parser.add_argument(
        "--candidates",
        type=int,
        metavar="N",
        help="print the N most probable ways to fill the text, each after its probability",
    )
    parser.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object per prompt: prompt, text, and answers (with --candidates, "
        "candidates too, each with text, answers and probability) or continuation",
    )
    return parser


if __name__ == "__main__":
    cli.run(main)
