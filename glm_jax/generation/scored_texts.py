"""Scores of given texts: `LanguageModel.score`, `.predicts`, `.perplexity`, .."""

from collections.abc import Sequence
from typing import TypedDict, Unpack

import numpy as np

from glm_jax.checks import whole_number
from glm_jax.config.model import ResolvedModel
from glm_jax.errors import UserError
from glm_jax.generation.given import ENCODE, check_encoded, check_length_penalty, given
from glm_jax.generation.rewards import rewards
from glm_jax.generation.scoring import (
    ScoredRow,
    TokenScores,
    blank_row,
    causal_row,
    score_rows,
)
from glm_jax.generation.windows import blank_window, causal_window, windows
from glm_jax.models.trees import Params
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers.ids import id_row, id_rows
from glm_jax.tokenizers.protocol import Messages, Tokenizer

Ids = Sequence[int]
# Slots of the longest row where no window is given.
_LONGEST_ROW = 1024


class WindowOptions(TypedDict, total=False):
    """What `token_log_probabilities` takes by name, beside `bidirectional`."""

    window: int | None
    stride: int | None
    prefix_ids: Ids | None
    mask_id: int | None
    start_id: int | None


class Scoring:
    """The methods of `LanguageModel` that score texts."""

    config: ResolvedModel
    params: Params
    special: SpecialTokens | None
    tokenizer: Tokenizer | None

    def score(
        self,
        ids: Ids,
        answers: Sequence[Ids],
        mask_ids: Ids | None = None,
        start_id: int | None = None,
        unidirectional: bool = False,
        length_penalty: float = 0.0,
    ) -> list[float]:
        """Log-likelihood of each answer as the filling of a blank, or as what follows a text.

            ids      [CLS] the light [MASK] good eos
            answers  [[was, END], [were, END]]          ->    [-2.1, -4.7]

        Args:
          ids: the prompt, with the special tokens of `fill_blanks`; the last of several masks is
            filled. For a causal model: the text before the answers, without a mask.
          answers: one id each at least. Nothing is added to them: an answer that is to end with its
            last word must hold the end id.
          mask_ids, start_id: as of `fill_blanks`.
          unidirectional: the ids behind the mask come before the answer in part B, where attention
            is causal: `[CLS] [gMASK] text`.
          length_penalty: the sum is divided by (ids of the answer) to this power, -5 to 5; 1: the
            mean.

        Returns:
          The sum of the log-probabilities of each answer's ids, in nats.

        Raises:
          UserError: no mask, no answer, an empty answer, or a row that does not fit the model.
        """
        answers = id_rows("score's answers", answers, "lm.tokenizer.encode('word') for each")
        if not answers:
            raise UserError("no answers to score; give one at least")
        length_penalty = check_length_penalty(length_penalty)
        prompts = [ids] * len(answers)
        found = self.answer_scores(prompts, answers, mask_ids, start_id, unidirectional)
        return [
            float(one.log_probabilities.sum() / len(one.best) ** length_penalty) for one in found
        ]

    def predicts(
        self,
        prompts: Sequence[Ids],
        answers: Sequence[Ids],
        mask_ids: Ids | None = None,
        start_id: int | None = None,
        unidirectional: bool = False,
    ) -> list[bool]:
        """Whether every id of an answer is the most probable one given the ids before it (LAMBADA).

        Args:
          prompts, answers: one answer per prompt.
          mask_ids, start_id, unidirectional: as of `score`.

        Raises:
          UserError: as of `score`; another number of answers than of prompts.
        """
        if len(prompts) != len(answers):
            raise UserError(
                f"predicts takes one answer per prompt; got {len(answers)} for {len(prompts)}"
            )
        found = self.answer_scores(prompts, answers, mask_ids, start_id, unidirectional)
        return [bool(one.best.all()) for one in found]

    def answer_scores(
        self,
        prompts: Sequence[Ids],
        answers: Sequence[Ids],
        mask_ids: Ids | None = None,
        start_id: int | None = None,
        unidirectional: bool = False,
    ) -> list[TokenScores]:
        """The log-probability of every id of every answer, and whether it is the most probable one.

        Rows of like length are computed together, whatever the order of the prompts.

        Args:
          prompts, answers: as many of the one as of the other.
          mask_ids, start_id, unidirectional: as of `score`; errors too.

        Returns:
          One `TokenScores` an answer: float32 [n] in nats and bool [n] for its n ids.
        """
        rows = [
            self._row(ids, answer, mask_ids, start_id, unidirectional)
            for ids, answer in zip(prompts, answers, strict=True)
        ]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index].tokens))
        found = score_rows(self.config, self.params, [rows[index] for index in order])
        scores = dict(zip(order, found, strict=True))
        return [scores[index] for index in range(len(rows))]

    def perplexity(
        self, ids: Ids, bidirectional: bool = False, **options: Unpack[WindowOptions]
    ) -> float:
        """exp of the mean loss per id of a text; the first id has no loss.

        Args and errors: as of `token_log_probabilities`.
        """
        return float(np.exp(-self.token_log_probabilities(ids, bidirectional, **options).mean()))

    def token_log_probabilities(
        self,
        ids: Ids,
        bidirectional: bool = False,
        window: int | None = None,
        stride: int | None = None,
        prefix_ids: Ids | None = None,
        mask_id: int | None = None,
        start_id: int | None = None,
    ) -> np.ndarray:
        """The log-probability of every id of a text but the first, by overlapping windows.

        Args:
          ids: the n ids of a text, without special tokens around it.
          bidirectional: part A holds all ids of a window that are not scored, so that they see each
            other. False: it holds the first id, and attention to the others is causal. Must be
            False for a causal model.
          window: ids of the longest window; None: as many as the model has positions for, 1023 at
            most.
          stride: new ids of each window but the first; None: half a window.
          prefix_ids: begin every window; None: [CLS]; for a causal model [gMASK] and the start
            token if the model has a tokenizer, nothing otherwise.
          mask_id: the blank at the end of part A; None: the checkpoint's [gMASK].
          start_id: as of `fill_blanks`.

        Returns:
          float32 [n - 1], in nats.

        Raises:
          UserError: fewer than 2 ids, a window that does not fit the model, bidirectional with a
            causal model.
        """
        ids = id_row("perplexity", ids, "lm.tokenizer.encode(text), which gives ids")
        window = min(self.config.max_positions, _LONGEST_ROW) - 1 if window is None else window
        window = whole_number("window", window)
        stride = max(1, window // 2) if stride is None else stride
        special = self.special
        found = windows(len(ids), window, stride)
        if self.config.continues_texts:
            if bidirectional:
                raise UserError("a causal model sees from left to right; bidirectional must be off")
            before = prefix_ids
            if before is None:
                before = [special.gmask, special.start] if special else []
            rows = [causal_window(ids, one, before) for one in found]
        else:
            rows = [
                blank_window(
                    ids,
                    one,
                    prefix_ids=given("prefix_ids", prefix_ids, special and [special.cls]),
                    mask_id=given("mask_id", mask_id, special and special.gmask),
                    start_id=given("start_id", start_id, special and special.start),
                    bidirectional=bidirectional,
                )
                for one in found
            ]
        scores = score_rows(self.config, self.params, rows)
        return np.concatenate([one.log_probabilities for one in scores])

    def rewards(self, conversations: Sequence[Messages]) -> list[float]:
        """What a reward model says of the last answer of each conversation.

            hi, yes = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}
            lm.rewards([[hi, yes]])  ->  [1.7]

        Args:
          conversations: messages each, the last of them the assistant's.

        Returns:
          One number each; only differences between answers to one prompt mean something.

        Raises:
          UserError: no value head (`train.loss="reward"` trains one), no tokenizer, or a
            conversation that does not end in an answer.
        """
        if self.tokenizer is None:
            raise UserError("rewards are of messages, and the model was loaded without a tokenizer")
        return rewards(self.config, self.params, self.tokenizer, conversations)

    def _row(
        self,
        ids: Ids,
        answer: Ids,
        mask_ids: Ids | None,
        start_id: int | None,
        unidirectional: bool,
    ) -> ScoredRow:
        """The row that scores one answer; arguments and errors as of `score`."""
        ids, answer = id_row("score", ids, ENCODE), id_row("score", answer, ENCODE)
        if self.config.continues_texts:
            if not ids:
                raise UserError("the prompt is empty; it must hold one id at least")
            return causal_row(ids, answer)
        special = self.special
        masks = given("mask_ids", mask_ids, special and special.masks)
        start = given("start_id", start_id, special and special.start)
        check_encoded(ids, masks, self.tokenizer)
        blanks = [i for i, id_ in enumerate(ids) if id_ in set(masks)]
        if not blanks:
            raise UserError(f"no blank to score: none of the mask ids {list(masks)} is in the text")
        blank = blanks[-1]
        if unidirectional:
            return blank_row(ids[: blank + 1], blank, start, ids[blank + 1 :], answer)
        return blank_row(ids, blank, start, [], answer)
