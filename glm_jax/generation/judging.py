"""What a `LanguageModel` says of texts that are given: scores of answers, perplexity."""

from collections.abc import Sequence

import numpy as np

from glm_jax.checks import whole_number
from glm_jax.config.model import ResolvedModel
from glm_jax.errors import UserError
from glm_jax.generation.given import ENCODE, check_length_penalty, check_read, given
from glm_jax.generation.scoring import JudgedRow, blank_row, causal_row, judge
from glm_jax.generation.windows import blank_window, causal_window, windows
from glm_jax.models.trees import Params
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers.ids import id_row, id_rows
from glm_jax.tokenizers.tokenizer import Tokenizer

Ids = Sequence[int]
# Without a window given, texts are cut so that a row stays below this.
_LONGEST_ROW = 1024


class Judging:
    """Methods of `LanguageModel`."""

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
        """How likely each of some answers is to fill a blank, or to follow a text.

            ids      [CLS] the light [MASK] good eos
            answers  [[was, END], [were, END]]          ->    [-2.1, -4.7]

        Args:
          ids: the prompt, framed as for `fill_blanks`; of several masks the last one is filled. Of
            a causal model: the text, no mask.
          answers: one id each at least. They are taken as they are: an answer that should end where
            its last word does ends with the end id.
          mask_ids, start_id: as of `fill_blanks`.
          unidirectional: what stands behind the mask comes in front of the answer in part B, and is
            seen from left to right: `[CLS] [gMASK] text`.
          length_penalty: the sum is divided by (ids of the answer) to this power, -5 to 5; 1: the
            mean.

        Returns:
          The sum of the log-probabilities of each answer's ids, in nats.

        Raises:
          UserError: no mask, no answer or an empty one, what does not fit the model.
        """
        answers = id_rows("score's answers", answers, "lm.tokenizer.encode('word') for each")
        if not answers:
            raise UserError("no answers to score; give one at least")
        length_penalty = check_length_penalty(length_penalty)
        rows = [self._row(ids, answer, mask_ids, start_id, unidirectional) for answer in answers]
        found = judge(self.config, self.params, rows)
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
        """Whether every id of an answer is the most likely one behind the ids before it (LAMBADA).

        Args:
          prompts, answers: one answer for each prompt; the rest as of `score`.
        """
        if len(prompts) != len(answers):
            raise UserError(f"one answer a prompt; got {len(answers)} for {len(prompts)}")
        rows = [
            self._row(ids, answer, mask_ids, start_id, unidirectional)
            for ids, answer in zip(prompts, answers, strict=True)
        ]
        return [bool(one.best.all()) for one in judge(self.config, self.params, rows)]

    def perplexity(self, ids: Ids, bidirectional: bool = False, **options) -> float:
        """exp of the mean loss of a text's ids, each behind those before it; the first is given.

        Args: see `token_log_probabilities`.
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
        """The log-probability of every id of a text but the first, in windows that overlap.

        Args:
          ids: n ids of text, without special ones around it.
          bidirectional: let part A hold all that is known of a window; False: its first id, and
            the rest is seen from left to right. Causal models know the latter only.
          window: most ids of a window; None: what the model's positions take, 1023 at most.
          stride: new ids of each window but the first; None: half a window.
          prefix_ids: in front of every window; None: [CLS] or, of a causal model, [gMASK] and the
            start token, where the tokenizer is known.
          mask_id: the blank at the end of part A; None: the checkpoint's [gMASK].
          start_id: as of `fill_blanks`.

        Returns:
          float32 [n - 1].

        Raises:
          UserError: fewer than 2 ids, a window that does not fit, a causal model asked to look
            both ways.
        """
        ids = id_row("perplexity", ids, "lm.tokenizer.encode(text), which gives ids")
        window = min(self.config.max_positions, _LONGEST_ROW) - 1 if window is None else window
        ids = [int(id_) for id_ in ids]
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
        judged = judge(self.config, self.params, rows)
        return np.concatenate([one.log_probabilities for one in judged])

    def _row(
        self,
        ids: Ids,
        answer: Ids,
        mask_ids: Ids | None,
        start_id: int | None,
        unidirectional: bool,
    ) -> JudgedRow:
        ids, answer = id_row("score", ids, ENCODE), id_row("score", answer, ENCODE)
        if self.config.continues_texts:
            if not ids:
                raise UserError("the prompt is empty; it must hold one id at least")
            return causal_row(ids, answer)
        special = self.special
        masks = given("mask_ids", mask_ids, special and special.masks)
        start = given("start_id", start_id, special and special.start)
        check_read(ids, masks, self.tokenizer)
        blanks = [i for i, id_ in enumerate(ids) if id_ in set(masks)]
        if not blanks:
            raise UserError(f"no blank to score: none of the mask ids {list(masks)} is in the text")
        blank = blanks[-1]
        if unidirectional:
            return blank_row(ids[: blank + 1], blank, start, ids[blank + 1 :], answer)
        return blank_row(ids, blank, start, [], answer)
