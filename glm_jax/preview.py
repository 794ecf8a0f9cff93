"""Shows what training rows look like: part A, part B, both positions, targets and the mask.

python -m glm_jax.preview --config configs/tiny_cpu.py [--num_examples 3]
"""

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glm_jax import cli
from glm_jax.errors import UserError

if TYPE_CHECKING:
    from glm_jax.config import Config


def main() -> None:
    parser = cli.Parser(
        prog="python -m glm_jax.preview",
        description="Shows what training rows look like, after a short example: part A, part B, "
        "both positions, targets and the mask.",
    )
    cli.add_config_arguments(parser)
    parser.add_argument(
        "--num_examples", type=int, default=1, help="rows of each objective (default 1)"
    )
    parser.add_argument(
        "--places", type=int, default=64, help="slots of a row to list (default 64)"
    )
    parser.add_argument(
        "--colour",
        choices=["auto", "always", "never"],
        default="auto",
        help="what is learnt of an example in green (auto: on a terminal) or in «signs»",
    )
    args = parser.parse_args()
    for name, least in (("num_examples", 1), ("places", 16)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}; got {getattr(args, name)}")
    config = _of_its_model(cli.config_from(args), args.overrides)

    from glm_jax.pipeline.batches import batches
    from glm_jax.pipeline.row_pages import describe, examples, introduction, names_of, summary
    from glm_jax.tokenizers.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(config.data.tokenizer)
    stream, colour = batches(config), _in_colour(args.colour)
    try:
        print(introduction(config, tokenizer))
        for objective, row in examples(stream, config, args.num_examples):
            names = names_of(config)
            print(describe(objective, row, tokenizer, args.places, colour, names))
            print()
        print(summary(stream.statistics, config.data.sequence_length))
    finally:
        stream.close()


def _of_its_model(config: "Config", overrides: Sequence[str]) -> "Config":
    """The config with the shape of `train.init_from`, which decides how examples are made."""
    if config.examples.format is None or config.train.init_from is None:
        return config
    from glm_jax.training.run.start import planned_config

    return planned_config(config, overrides)


def _in_colour(asked: str) -> bool:
    if asked == "auto":
        return sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return asked == "always"


if __name__ == "__main__":
    cli.run(main)
