"""Training rows as text: an introduction, rows of each objective, and a line of statistics."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from glm_jax.batch import OF_TEXTS, Batch
from glm_jax.config import Config
from glm_jax.data.example_row import TEXT, example_row
from glm_jax.data.examples.picture import COLOURS, SIGNS, spell_examples
from glm_jax.data.picture import (
    draw_mask,
    objective_of,
    row_of,
    segments,
    show,
    slots_used,
    spell,
)
from glm_jax.data.stream import RowStream
from glm_jax.tokenizers.protocol import Tokenizer

# A mask of up to this many slots is drawn beside the table, a larger one below it, compressed.
_WIDE = 32
_ROWS_TRIED = 2000
_OF_PROMPTS = ("prompt",)

LEGEND = """\
How to read a row. Part A is the text with spans cut out, each replaced by a mask. Part B holds the
spans, each after <|startofpiece|>; there the model predicts the next token, until <|endofpiece|>.

token    the input in a slot of the row (2/3: the second byte of three of a character)
target   the token to predict there; \N{MIDDLE DOT} is nothing
pos      the first position: the index in part A; all of a span has that of its mask
block    the second position: 0 in part A; 1, 2, 3 ... inside a span
sees     the keys that its query sees: x in the picture, one column per key; a:b means a to b - 1
\N{OPEN BOX}        a space"""

LEGEND_OF_EXAMPLES = """\
How to read a row. It holds examples side by side; each attends to itself alone. First stands the
text of each, with what is learnt in «signs» or in green, then a table of the slots.

token    the input in a slot of the row (2/3: the second byte of three of a character)
target   the token to predict there; \N{MIDDLE DOT} is nothing
pos      the first position: the index in the example; in part B that of its mask
block    the second position: 0, but 1, 2, 3 ... in part B
sees     the keys that its query sees: x in the picture, one column per key; a:b means a to b - 1

Rows of your examples:
"""


def introduction(config: Config, tokenizer: Tokenizer) -> str:
    """The legend, and a short English text as a row of the config's first objective.

    Without texts there is no objective, and the legend stands alone.
    """
    if not config.has_texts:
        return LEGEND_OF_EXAMPLES
    row = example_row(config, tokenizer)
    decode = _decoder(tokenizer)
    parts = [
        LEGEND,
        f"An example, {objective_of(row)} of the text {TEXT!r}:",
        spell(row, decode),
        show(row, lambda id_: decode([id_]), join=decode),
        "Rows of your corpus:\n",
    ]
    return "\n\n".join(parts)


def examples(stream: RowStream, config: Config, count: int) -> Iterator[tuple[str, Batch]]:
    """Yields `count` rows of each objective of the config, in the order of the stream.

    It stops after 2000 rows, so a rare objective may have fewer.
    """

    rates = {name: getattr(config.objective, f"{name}_rate") for name in OF_TEXTS}
    missing = {name: count for name, rate in rates.items() if rate > 0 and config.has_texts}
    if config.examples.format is not None:
        missing["answer"] = count
    for number, batch in enumerate(stream):
        for index in range(batch.shape[0]):
            row = row_of(batch, index)
            kind = objective_of(row)
            if missing.get(kind):
                missing[kind] -= 1
                yield kind, row
        if not any(missing.values()) or number * batch.shape[0] > _ROWS_TRIED:
            return


def names_of(config: Config) -> tuple[str, ...]:
    """The names of the examples of a row, as those of a pair's answers; () where they have none."""
    found = {"preferences": ("chosen", "rejected"), "prompts": _OF_PROMPTS}
    return found.get(str(config.examples.format), ())


def describe(
    objective: str,
    row: Batch,
    tokenizer: Tokenizer,
    places: int,
    colour: bool = False,
    names: Sequence[str] = (),
) -> str:
    """Shows a row as text, as a table of its first `places` slots and as a picture of its mask.

    `names` are those of its examples, where they have any (`names_of`).
    """

    if tuple(names) == _OF_PROMPTS:
        # Behind a prompt stands what the policy will say; the target in the file is none.
        row = dataclasses.replace(row, loss_weights=np.zeros_like(row.loss_weights))
    used, length = slots_used(row), len(row.tokens)
    beside = used <= _WIDE
    decode = _decoder(tokenizer)
    parts = [
        f"== {objective}: {used} of {length} slots used, segments: {len(segments(row))}, "
        f"targets: {int((row.loss_weights > 0).sum())}",
        spell_examples(row, decode, COLOURS if colour else SIGNS, names)
        if objective == "answer"
        else spell(row, decode),
        show(row, lambda id_: decode([id_]), mask=beside, slots=places, join=decode),
    ]
    if not beside:
        side = -(-used // _WIDE)
        parts += [
            f"the mask, {side} by {side} slots per sign (x all seen, + some, . none):",
            draw_mask(row.attend_start[:used], row.attend_end[:used], _WIDE),
        ]
    return "\n\n".join(parts)


def _decoder(tokenizer: Tokenizer) -> Callable[[Sequence[int]], str]:
    """A function that spells ids, with the space before a word.

    Ids beyond the vocabulary (`objective.published.block_mask_id`) are spelt as numbers, <7168>.
    """
    special = tokenizer.special
    mask = tokenizer.decode([special.mask])

    def known(ids: list[int]) -> str:
        # After a special token a tokenizer keeps the space before a word.
        if tokenizer.carries_spaces and ids and ids[0] != special.cls:
            return tokenizer.decode([special.mask, *ids]).removeprefix(mask)
        return tokenizer.decode(ids)

    def decode(ids: Sequence[int]) -> str:
        text, run = "", []
        for id_ in map(int, ids):
            if id_ < tokenizer.vocab_size:
                run.append(id_)
            else:
                text, run = f"{text}{known(run)}<{id_}>", []
        return text + known(run)

    return decode


def summary(statistics: dict[str, int], length: int) -> str:
    """A line of statistics over the rows that were read."""
    rows, source = statistics["rows"], max(statistics["source_tokens"], 1)
    if "examples" in statistics:
        return (
            f"{rows} rows: {statistics['places_used'] / (rows * length):.1%} of the slots used, "
            f"{statistics['examples'] / rows:.1f} examples per row, "
            f"{statistics['targets'] / source:.1%} of the tokens have a target"
        )
    return (
        f"{rows} rows: {statistics['places_used'] / (rows * length):.1%} of the slots used, "
        f"{source / rows:.0f} tokens of text per row, "
        f"{statistics['masked_tokens'] / source:.1%} of them in spans; "
        f"{statistics['rows_fewer_spans']} rows in which spans did not fit, "
        f"{statistics['sentence_rows_without_sentence']} sentence rows with a text that has none"
    )
