"""Shows what training rows look like: part A, part B, both positions, targets and the mask.

python -m glm_jax.preview --config configs/tiny_cpu.py [--num_examples 3]
"""

import argparse
from collections.abc import Callable, Iterator, Sequence

from glm_jax import cli, pipeline
from glm_jax.batch import OBJECTIVES, Batch
from glm_jax.config import Config
from glm_jax.data.picture import (
    draw_mask,
    objective_of,
    places_used,
    row_of,
    segments,
    show,
    spell,
)
from glm_jax.data.stream import RowStream
from glm_jax.errors import UserError
from glm_jax.interop.tokenizers import Tokenizer, load_tokenizer

# A mask of up to this many places is drawn beside the table, a larger one below it, compressed.
_WIDE = 32
_ROWS_TRIED = 2000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m glm_jax.preview", description=__doc__)
    cli.add_config_arguments(parser)
    parser.add_argument(
        "--num_examples", type=int, default=1, help="rows of each objective (default 1)"
    )
    parser.add_argument(
        "--places", type=int, default=64, help="places of a row to list (default 64)"
    )
    args = parser.parse_args()
    for name, least in (("num_examples", 1), ("places", 16)):
        if getattr(args, name) < least:
            raise UserError(f"--{name} must be at least {least}; got {getattr(args, name)}")
    config = cli.config_from(args)
    tokenizer = load_tokenizer(config.data.tokenizer)
    stream = pipeline.batches(config)
    try:
        for objective, row in examples(stream, config, args.num_examples):
            print(describe(objective, row, tokenizer, args.places))
            print()
        print(summary(stream.statistics, config.data.sequence_length))
    finally:
        stream.close()


def examples(stream: RowStream, config: Config, count: int) -> Iterator[tuple[str, Batch]]:
    """`count` rows of each objective that the config asks for, in the order of the stream.

    An objective so rare that 2000 rows do not hold as many of it stays short.
    """
    objective = config.objective
    missing = {name: count for name in OBJECTIVES if getattr(objective, f"{name}_rate") > 0}
    for number, batch in enumerate(stream):
        for index in range(batch.shape[0]):
            row = row_of(batch, index)
            kind = objective_of(row)
            if missing.get(kind):
                missing[kind] -= 1
                yield kind, row
        if not any(missing.values()) or number * batch.shape[0] > _ROWS_TRIED:
            return


def describe(objective: str, row: Batch, tokenizer: Tokenizer, places: int) -> str:
    """A row as text, as a table and as a picture."""
    used, length = places_used(row), len(row.tokens)
    beside = used <= _WIDE
    decode = _decoder(tokenizer)
    parts = [
        f"== {objective}: {used} of {length} places used, texts: {len(segments(row))}, "
        f"targets: {int((row.loss_weights > 0).sum())}",
        spell(row, decode),
        show(row, lambda id_: decode([id_]), mask=beside, places=places),
    ]
    if not beside:
        side = -(-used // _WIDE)
        parts += [
            f"the mask, {side} by {side} places a sign (x all seen, + some, . none):",
            draw_mask(row.attend_start[:used], row.attend_end[:used], _WIDE),
        ]
    return "\n\n".join(parts)


def _decoder(tokenizer: Tokenizer) -> Callable[[Sequence[int]], str]:
    """Spells ids; those beyond the vocabulary (`objective.block_mask_id`) as numbers, <8192>."""

    def decode(ids: Sequence[int]) -> str:
        text, run = "", []
        for id_ in map(int, ids):
            if id_ < tokenizer.vocab_size:
                run.append(id_)
            else:
                text, run = f"{text}{tokenizer.decode(run)}<{id_}>", []
        return text + tokenizer.decode(run)

    return decode


def summary(statistics: dict[str, int], length: int) -> str:
    """What the rows looked at held in all."""
    rows, source = statistics["rows"], statistics["source_tokens"]
    return (
        f"{rows} rows: {statistics['places_used'] / (rows * length):.1%} of the places used, "
        f"{source / rows:.0f} tokens of text in a row, "
        f"{statistics['masked_tokens'] / source:.1%} of them in spans; "
        f"{statistics['rows_fewer_spans']} rows in which spans did not fit, "
        f"{statistics['sentence_rows_without_sentence']} sentence rows with a text that has none"
    )


if __name__ == "__main__":
    cli.run(main)
