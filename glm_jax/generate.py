"""Fills the blanks of a text: `python -m glm_jax.generate --checkpoint DIR 'text with [MASK]'`."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glm_jax import cli
from glm_jax.errors import UserError
from glm_jax.special_tokens import SPELLINGS

if TYPE_CHECKING:
    from glm_jax.inference.language_model import LanguageModel
    from glm_jax.interop.tokenizers import Tokenizer

MASKS = [SPELLINGS[role] for role in ("mask", "gmask", "smask")]
_AT_MASKS = re.compile("|".join(map(re.escape, MASKS)))
_BOLD, _PLAIN = "\033[1m", "\033[0m"


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.interactive == (args.prompt is not None):
        raise UserError("give one of: a prompt, - for a prompt on standard input, --interactive")
    prompt = sys.stdin.read() if args.prompt == "-" else args.prompt
    if prompt is not None:
        # Said before a model is loaded for nothing.
        check_prompt(prompt)

    from glm_jax.inference.language_model import load

    model = load(args.checkpoint)
    names = ("max_new_tokens", "temperature", "top_k", "top_p", "seed")
    options = {name: getattr(args, name) for name in names}
    if prompt is None:
        return _interact(model, options)
    print(fill_text(model, prompt, bold=sys.stdout.isatty(), **options))
    return 0


def fill_text(model: "LanguageModel", prompt: str, bold: bool = False, **options: Any) -> str:
    """Returns the prompt with its blanks filled in.

        the [MASK] is good -> the [light] is good

    Args:
      model: with a tokenizer.
      prompt: text with at least one of `MASKS`.
      bold: mark answers by bold type instead of brackets.
      **options: of `LanguageModel.fill_blanks`.

    Raises:
      UserError: no blank in the prompt, a model without a tokenizer, or a text too long for it.
    """
    check_prompt(prompt)
    prompt = prompt.rstrip()
    if model.tokenizer is None:
        raise UserError("the checkpoint holds no tokenizer.model, which text needs")
    answers = model.fill_blanks(prompt_ids(model.tokenizer, prompt), **options)
    texts = iter([model.tokenizer.decode(ids, skip_special=True).strip() for ids in answers])
    left, right = (_BOLD, _PLAIN) if bold else ("[", "]")
    return _AT_MASKS.sub(lambda _: f"{left}{next(texts)}{right}", prompt)


def prompt_ids(tokenizer: "Tokenizer", prompt: str) -> list[int]:
    """The ids of a prompt as training has them: [CLS], the text, eos.

    There is no eos where the text goes on: after a [gMASK] at its end (the published rule).
    """
    ids = [tokenizer.special.cls, *tokenizer.encode(prompt, allow_special=True)]
    return ids if ids[-1] == tokenizer.special.gmask else [*ids, tokenizer.special.eos]


def check_prompt(prompt: str) -> None:
    """Raises UserError where there is nothing to fill."""
    if not _AT_MASKS.search(prompt):
        raise UserError(f"no blank in the prompt; write {', '.join(MASKS[:-1])} or {MASKS[-1]}")


def _interact(model: "LanguageModel", options: dict[str, Any]) -> int:
    """A prompt a line, until the end of the input."""
    shown = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            prompt = input(shown)
        except EOFError:
            return 0
        try:
            print(fill_text(model, prompt, bold=sys.stdout.isatty(), **options), flush=True)
        except UserError as error:
            print(f"error: {error}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m glm_jax.generate",
        description="Fills the blanks of a text, from left to right.",
        epilog="[MASK] stands for some words, [sMASK] for a sentence, [gMASK] for a long stretch.",
    )
    parser.add_argument("prompt", nargs="?", help="text with blanks; - reads it from stdin")
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
    return parser


if __name__ == "__main__":
    cli.run(main)
