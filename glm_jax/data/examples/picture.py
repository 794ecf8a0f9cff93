"""A row of examples as text, with what is learnt marked.

example 1: 9 slots, 3 learnt
  <|user|> hi<|assistant|>«\\n yes<|user|>»
"""

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from glm_jax.batch import ANSWER, Batch
from glm_jax.data.picture import segments

# Around what is learnt: signs, or bold green on a terminal.
SIGNS = ("«", "»")
COLOURS = ("\x1b[1;32m", "\x1b[0m")


def spell_examples(
    row: Batch,
    decode: Callable[[list[int]], str],
    marks: tuple[str, str] = SIGNS,
    names: Sequence[str] = (),
) -> str:
    """Each example of a row as text.

    Args:
      row: a Batch of [T] arrays.
      decode: ids to text, special tokens spelled.
      marks: what stands before and behind what is learnt.
      names: of the examples, such as "chosen" and "rejected"; they are numbered without.
    """
    lines, named = [], dict(enumerate(names, 1))
    for number, segment in enumerate(segments(row), start=1):
        inside = slice(segment.start, segment.end)
        learnt = (row.loss_weights[inside] > 0) & (row.objective[inside] == ANSWER)
        name = named.get(number, f"example {number}")
        lines += [
            f"{name}: {segment.end - segment.start} slots, {int(learnt.sum())} learnt",
            f"  {_marked(row.tokens[inside], row.targets[inside], learnt, decode, marks)}",
        ]
    return "\n".join(lines)


def _marked(
    tokens: np.ndarray,
    targets: np.ndarray,
    learnt: np.ndarray,
    decode: Callable[[list[int]], str],
    marks: tuple[str, str],
) -> str:
    """The text of an example: its tokens, and the target of the last one if it is learnt."""
    ids = [int(tokens[0]), *tokens[1:].tolist()]
    wanted = [False, *learnt[:-1].tolist()]
    if learnt[-1]:
        ids.append(int(targets[-1]))
        wanted.append(True)
    text = ""
    for use, run in itertools.groupby(zip(ids, wanted, strict=True), key=lambda pair: pair[1]):
        part = decode([id_ for id_, _ in run]).replace("\n", "\\n")
        text += f"{marks[0]}{part}{marks[1]}" if use else part
    return text
