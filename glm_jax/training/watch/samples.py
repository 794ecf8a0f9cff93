"""`samples.txt`: blanks of held-out rows filled by the model, or texts continued, during training.

Each answer stands beside the original text.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from glm_jax.batch import ANSWER, Batch
from glm_jax.config import Config
from glm_jax.data.picture import SPACE, visible
from glm_jax.generation.blank_filling import fill_rows
from glm_jax.generation.continuation import generate_rows
from glm_jax.generation.engine import Engine
from glm_jax.generation.options import Limits, Marks
from glm_jax.generation.sampling import Sampling
from glm_jax.models.trees import Params
from glm_jax.tokenizers.protocol import Tokenizer
from glm_jax.training.distributed import any_of, is_first, on_first
from glm_jax.training.watch.progress import say
from glm_jax.training.watch.sections import SectionFile

_CONTEXT = 12  # tokens shown on either side of a blank
_LONGEST_ANSWER = 32
_BEGINNING = 24  # tokens of a causal text to go on from


@dataclasses.dataclass(frozen=True)
class BlankedText:
    """A text with blanks, and the ids that were cut out.

    A causal text is represented by its beginning, with a single blank after the last token that has
    no mask.

    Attributes:
      tokens: part A, mask ids included.
      blanks: indices of the masks in `tokens`, ascending.
      originals: the original ids of each blank, without the end id.
    """

    tokens: list[int]
    blanks: list[int]
    originals: list[list[int]]

    @property
    def continues(self) -> bool:
        """Whether it is the beginning of a causal text."""
        return self.blanks == [len(self.tokens)]


def blanked_texts(batch: Batch, row: int, end_id: int) -> list[BlankedText]:
    """Recovers the text of each segment of a row.

        tokens           a M d | S b c       ->  tokens [a M d], blanks [1], originals [[b, c]]
        targets          . . . | b c E
        positions        0 1 2 | 1 1 1
        block_positions  0 0 0 | 1 2 3
        attend_start     0 0 0 | 0 0 0

    Args:
      batch: numpy, [B, T].
      row: index of the row.
      end_id: the target that ends a span.
    """
    texts = []
    empty = batch.attend_start[row] >= batch.attend_end[row]
    for start in np.unique(batch.attend_start[row][~empty]):
        inside = (batch.attend_start[row] == start) & ~empty
        part_a = inside & (batch.block_positions[row] == 0)
        part_b = inside & (batch.block_positions[row] > 0)
        if not part_b.any():  # nothing was cut out
            learnt = inside & (batch.loss_weights[row] > 0) & (batch.objective[row] == ANSWER)
            if learnt.any():
                texts.append(_question(batch.tokens[row][inside], learnt[inside]))
            else:
                texts.append(_beginning(batch.tokens[row][inside].tolist()))
            continue
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


def _question(tokens: np.ndarray, learnt: np.ndarray) -> BlankedText:
    """What precedes the first answer of a causal example."""
    first = int(np.argmax(learnt)) + 1
    # The slot of the last token that is learnt predicts what follows it.
    after = np.flatnonzero(~learnt[first:])
    end = first + int(after[0]) + 1 if len(after) else len(tokens)
    return BlankedText(tokens[:first].tolist(), [first], [tokens[first:end].tolist()])


def _beginning(tokens: list[int]) -> BlankedText:
    """A causal text cut in the middle, after at most `_BEGINNING` tokens."""
    cut = min(_BEGINNING, (len(tokens) + 1) // 2)
    return BlankedText(tokens[:cut], [cut], [tokens[cut : cut + _LONGEST_ANSWER]])


def choose_texts(
    batch: Batch, end_id: int, continues: bool, count: int = 6, longest: int = 64
) -> list[BlankedText]:
    """Chooses texts with blanks, at most one per row, taking objectives in turn.

    Args:
      batch: numpy, [B, T].
      end_id: the target that ends a span.
      continues: whether the model continues texts (`ModelConfig.continues_texts`); if not, causal
        texts are not chosen.
      count: maximum number of texts.
      longest: maximum number of ids cut out of a text.
    """
    by_objective: dict[int, list[BlankedText]] = {}
    for row in range(len(batch.tokens)):
        objective = int(batch.objective[row].max())
        texts = [t for t in blanked_texts(batch, row, end_id) if t.blanks]
        texts = [t for t in texts if continues or not t.continues]
        texts = [t for t in texts if sum(map(len, t.originals)) <= longest]
        if texts:
            by_objective.setdefault(objective, []).append(texts[0])
    chosen: list[BlankedText] = []
    while len(chosen) < count and any(by_objective.values()):
        chosen += [texts.pop(0) for _, texts in sorted(by_objective.items()) if texts]
    return chosen[:count]


class Sampler:
    """Writes `samples.txt`: one section per sampled step, always with the same texts."""

    def __init__(
        self, config: Config, tokenizer: Tokenizer, texts: Sequence[BlankedText], path: Path
    ):
        """Args:
        config: of the run.
        tokenizer: of its data.
        texts: see `choose_texts`.
        path: of samples.txt.
        """
        self._model = config.resolved_model.with_compute(scan_layers=False)
        self._tokenizer, self._texts, self._file = tokenizer, texts, SectionFile(path)

    def rewind(self, step: int) -> None:
        """Removes the sections after `step`, which a run that resumes there will write again."""
        self._file.rewind(step)

    def section(self, step: int, params: Params) -> str:
        """Fills all blanks greedily; to be called by every process that holds parameters."""
        engine = Engine(self._model, params, tiles=False)
        blanked = [text for text in self._texts if not text.continues]
        beginnings = [text for text in self._texts if text.continues]
        lines = ""
        if blanked:
            lines += render(blanked, self._fill(blanked, engine), self._tokenizer)
        if beginnings:
            lines += render(beginnings, self._continue(beginnings, engine), self._tokenizer)
        return f"step {step}\n{lines}"

    def add(self, step: int, params: Params) -> None:
        """Makes a section on all processes, which may share the parameters; the first writes it."""
        section = self.section(step, params)
        on_first(lambda: self.write(section), "write samples.txt")
        say(section)

    def lacks(self, step: int) -> bool:
        """Whether the section of a step is missing; every process gets the same answer."""
        return any_of(is_first() and not self._file.has(step))

    def write(self, section: str) -> None:
        """Adds a section to the file."""
        self._file.add(section)

    # All texts go in one batch, since each shape is compiled anew.

    def _fill(self, texts: list[BlankedText], engine: Engine) -> list[list[list[int]]]:
        special = self._tokenizer.special
        return fill_rows(
            engine,
            [text.tokens for text in texts],
            marks=Marks(special.masks, special.start),
            limits=Limits(
                (special.end, special.eos), min(_LONGEST_ANSWER, self._model.max_positions)
            ),
            sampling=Sampling(),
        )

    def _continue(self, texts: list[BlankedText], engine: Engine) -> list[list[list[int]]]:
        longest = max(len(text.tokens) for text in texts)
        answers = generate_rows(
            engine,
            [text.tokens for text in texts],
            limits=Limits(
                (self._tokenizer.special.eos, *self._tokenizer.chat_end_ids),
                min(_LONGEST_ANSWER, self._model.max_positions - longest),
            ),
            sampling=Sampling(),
        )
        return [[answer] for answer in answers]


def render(
    texts: Sequence[BlankedText],
    answers: Sequence[Sequence[Sequence[int]]],
    tokenizer: Tokenizer,
    blanks_shown: int = 3,
) -> str:
    """The lines of a section.

      … God created the →[MASK]← and the earth. The earth was …
        original: heavens
        filled:   heaven

    Args:
      texts: with their originals.
      answers: the ids that fill each blank of each text.
      tokenizer: decodes them.
      blanks_shown: maximum number of blanks per text.
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


def _around(tokens: list[int], blank: int, tokenizer: Tokenizer) -> str:
    low, high = max(0, blank - _CONTEXT), min(len(tokens), blank + 1 + _CONTEXT)
    before, mask, after = (
        _one_line(tokenizer.decode(part))
        for part in (tokens[low:blank], tokens[blank : blank + 1], tokens[blank + 1 : high])
    )
    left, right = "… " if low else "", " …" if high < len(tokens) else ""
    return f"{left}{before} →{mask}← {after}{right}".rstrip()


def _answer(ids: list[int], tokenizer: Tokenizer) -> str:
    more = " …" if len(ids) > _LONGEST_ANSWER else ""
    text = tokenizer.decode(ids[:_LONGEST_ANSWER], skip_special=True)
    # An answer of white space alone would look like none.
    alone = visible(text.replace("\n", "\\n")) or SPACE if ids else ""
    return (_one_line(text) or alone) + more


def _one_line(text: str) -> str:
    return " ".join(text.split())
