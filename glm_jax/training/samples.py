"""Blanks of held-out rows, filled by the model, beside what stood there."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glm_jax.batch import Batch
from glm_jax.config import Config
from glm_jax.inference.blank_filling import fill_rows
from glm_jax.inference.sampling import Sampling
from glm_jax.models.params import unstack_layers
from glm_jax.training.workdir import write_whole

_CONTEXT = 12  # tokens shown on either side of a blank
_LONGEST_ANSWER = 32


@dataclasses.dataclass(frozen=True)
class BlankedText:
    """A text with blanks, and what was cut out.

    Attributes:
      tokens: part A, mask ids included.
      blanks: indices of the masks in `tokens`, ascending.
      originals: the ids that stood in each blank, without the end id.
    """

    tokens: list[int]
    blanks: list[int]
    originals: list[list[int]]


def blanked_texts(batch: Batch, row: int, end_id: int) -> list[BlankedText]:
    """Takes the texts of a row apart again, one for each of its segments.

        tokens           a M d | S b c       ->  tokens [a M d], blanks [1], originals [[b, c]]
        targets          . . . | b c E
        positions        0 1 2 | 1 1 1
        block_positions  0 0 0 | 1 2 3
        attend_start     0 0 0 | 0 0 0

    Args:
      batch: numpy, [B, T].
      row: which of its rows.
      end_id: the target that ends a span.
    """
    texts = []
    empty = batch.attend_start[row] >= batch.attend_end[row]
    for start in np.unique(batch.attend_start[row][~empty]):
        inside = (batch.attend_start[row] == start) & ~empty
        part_a = inside & (batch.block_positions[row] == 0)
        part_b = inside & (batch.block_positions[row] > 0)
        originals: dict[int, list[int]] = {}
        for blank, target in zip(
            batch.positions[row][part_b], batch.targets[row][part_b], strict=True
        ):
            found = originals.setdefault(int(blank), [])
            if target != end_id:
                found.append(int(target))
        blanks = sorted(originals)
        tokens = [int(token) for token in batch.tokens[row][part_a]]
        texts.append(BlankedText(tokens, blanks, [originals[blank] for blank in blanks]))
    return texts


def choose_texts(batch: Batch, end_id: int, count: int = 6, longest: int = 64) -> list[BlankedText]:
    """The first texts with blanks, one of each row and as many objectives as there are in turn."""
    by_objective: dict[int, list[BlankedText]] = {}
    for row in range(len(batch.tokens)):
        objective = int(batch.objective[row].max())
        texts = [t for t in blanked_texts(batch, row, end_id) if t.blanks]
        texts = [t for t in texts if sum(map(len, t.originals)) <= longest]
        if texts:
            by_objective.setdefault(objective, []).append(texts[0])
    chosen: list[BlankedText] = []
    while len(chosen) < count and any(by_objective.values()):
        chosen += [texts.pop(0) for _, texts in sorted(by_objective.items()) if texts]
    return chosen[:count]


class Sampler:
    """Writes `samples.txt`: the same texts each time, one section a step."""

    def __init__(
        self, config: Config, tokenizer: Any, texts: Sequence[BlankedText], path: Path, step: int
    ):
        """Opens the file of a run that goes on after `step`; later sections are removed.

        Args:
          config: of the run.
          tokenizer: of its data.
          texts: see `choose_texts`.
          path: of samples.txt.
          step: 0 for a new run.
        """
        self._config, self._tokenizer, self._texts, self._path = config, tokenizer, texts, path
        if path.exists():
            write_whole(path, _sections_until(path.read_text(encoding="utf-8"), step).encode())

    def __call__(self, step: int, params: Any) -> str:
        """Fills every blank greedily, adds a section to the file, and returns it."""
        model, special = self._config.model, self._tokenizer.special
        # All texts in one batch: each shape compiles anew.
        answers = fill_rows(
            dataclasses.replace(model, scan_layers=False),
            unstack_layers(params),
            [text.tokens for text in self._texts],
            mask_ids=special.masks,
            start_id=special.start,
            end_ids=(special.end, special.eos),
            max_new_tokens=min(_LONGEST_ANSWER, model.max_positions),
            sampling=Sampling(),
        )
        section = f"step {step}\n{render(self._texts, answers, self._tokenizer)}"
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(section)
        return section


def render(
    texts: Sequence[BlankedText],
    answers: Sequence[Sequence[Sequence[int]]],
    tokenizer: Any,
    blanks_shown: int = 3,
) -> str:
    """The lines of a section.

      … God created the →[MASK]← and the earth. The earth was …
        original: heavens
        filled:   heaven

    Args:
      texts: with what was cut out.
      answers: the ids that fill each blank of each text.
      tokenizer: to show them.
      blanks_shown: of each text, at most.
    """
    lines = []
    for text, filled in zip(texts, answers, strict=True):
        shown = list(zip(text.blanks, text.originals, filled, strict=True))[:blanks_shown]
        for blank, original, answer in shown:
            lines += [
                f"  {_around(text.tokens, blank, tokenizer)}",
                f"    original: {_answer(original, tokenizer)}",
                f"    filled:   {_answer(list(answer), tokenizer)}",
            ]
    return "".join(f"{line}\n" for line in lines)


def _sections_until(content: str, step: int) -> str:
    starts = re.finditer(r"^step (\d+)$", content, re.MULTILINE)
    later = [match.start() for match in starts if int(match[1]) > step]
    return content[: later[0]] if later else content


def _around(tokens: list[int], blank: int, tokenizer: Any) -> str:
    low, high = max(0, blank - _CONTEXT), min(len(tokens), blank + 1 + _CONTEXT)
    before, mask, after = (
        _one_line(tokenizer.decode(part))
        for part in (tokens[low:blank], tokens[blank : blank + 1], tokens[blank + 1 : high])
    )
    left, right = "… " if low else "", " …" if high < len(tokens) else ""
    return f"{left}{before} →{mask}← {after}{right}"


def _answer(ids: list[int], tokenizer: Any) -> str:
    more = " …" if len(ids) > _LONGEST_ANSWER else ""
    return _one_line(tokenizer.decode(ids[:_LONGEST_ANSWER], skip_special=True)) + more


def _one_line(text: str) -> str:
    return " ".join(text.split())
