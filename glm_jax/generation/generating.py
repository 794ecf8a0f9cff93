"""Ids in, ids out: `LanguageModel.fill_blanks` and `.generate`."""

import operator
from collections.abc import Sequence
from typing import Unpack, overload

import jax

from glm_jax.config.model import ResolvedModel
from glm_jax.errors import UserError
from glm_jax.generation.beam_rows import search_blanks, search_texts
from glm_jax.generation.blank_filling import fill_rows
from glm_jax.generation.continuation import generate_rows
from glm_jax.generation.ends import eos_ids_of, marks_of, span_ends_of
from glm_jax.generation.engine import Engine
from glm_jax.generation.given import ENCODE, check_encoded, check_special_ids, given
from glm_jax.generation.options import (
    BeamSearch,
    GenerateOptions,
    Limits,
    Marks,
    Options,
    decoding,
)
from glm_jax.generation.sampling import Sampling
from glm_jax.interop.origin import Origin
from glm_jax.models.trees import Params
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers.ids import id_rows, one_or_more
from glm_jax.tokenizers.protocol import Tokenizer


class Generating:
    """The methods of `LanguageModel` that choose ids."""

    config: ResolvedModel
    params: Params
    special: SpecialTokens | None
    tokenizer: Tokenizer | None
    _origin: Origin
    _decoder: Engine | None

    @overload
    def fill_blanks(
        self,
        ids: Sequence[int],
        mask_ids: Sequence[int] | None = None,
        start_id: int | None = None,
        end_ids: Sequence[int] | None = None,
        max_new_tokens: int = 64,
        max_total_tokens: int | None = None,
        how: Sampling | BeamSearch | None = None,
        **options: Unpack[Options],
    ) -> list[list[int]]: ...

    @overload
    def fill_blanks(
        self,
        ids: Sequence[Sequence[int]],
        mask_ids: Sequence[int] | None = None,
        start_id: int | None = None,
        end_ids: Sequence[int] | None = None,
        max_new_tokens: int = 64,
        max_total_tokens: int | None = None,
        how: Sampling | BeamSearch | None = None,
        **options: Unpack[Options],
    ) -> list[list[list[int]]]: ...

    def fill_blanks(
        self,
        ids: Sequence[int] | Sequence[Sequence[int]],
        mask_ids: Sequence[int] | None = None,
        start_id: int | None = None,
        end_ids: Sequence[int] | None = None,
        max_new_tokens: int = 64,
        max_total_tokens: int | None = None,
        how: Sampling | BeamSearch | None = None,
        **options: Unpack[Options],
    ) -> list[list[int]] | list[list[list[int]]]:
        """Fills the blanks of a text from left to right; later ones see the answers before them.

            ids        [CLS] the [MASK] is [MASK] eos
            returns    [[light], [very, good]]

        Args:
          ids: a text with at least one mask; or a list of such texts, each filled by itself, in
            one batch.
          mask_ids: ids that are blanks; None: the checkpoint's [MASK], [gMASK] and [sMASK].
          start_id: first input of a span; None: the checkpoint's <|startofpiece|>.
          end_ids: ids that end a span; None: the checkpoint's <|endofpiece|> and <|endoftext|>.
          max_new_tokens: number of ids of the longest answer.
          max_total_tokens: most ids of all answers of a text together, end ids counted; blanks that
            are not reached stay empty. Not with beam search.
          how: a `Sampling`, or a `BeamSearch` of the answer to each blank in turn. None: made of
            `options`; greedy by default.
          **options: fields of `Sampling` and `BeamSearch`: temperature=0.7, top_k=20, num_beams=4.

        Returns:
          One list of ids per mask, end id not included; for several texts a list of these.

        Raises:
          UserError: no mask in `ids`, special ids that are neither given nor the tokenizer's, too
            long a text, options that exclude each other.
        """
        rows, several = one_or_more("fill_blanks", ids, f"lm.fill(text), or {ENCODE}")
        known = marks_of(self._origin, self.special)
        marks = Marks(
            given("mask_ids", mask_ids, known.mask_ids if known else None),
            given("start_id", start_id, known.start_id if known else None),
        )
        limits = Limits(
            given("end_ids", end_ids, span_ends_of(self._origin, self.special)),
            max_new_tokens,
            max_total_tokens,
        )
        check_special_ids(
            self.config, mask_ids=marks.mask_ids, start_id=marks.start_id, end_ids=limits.end_ids
        )
        how, engine = decoding(how, options), self._engine()
        for row in rows:
            check_encoded(row, marks.mask_ids, self.tokenizer)
        if isinstance(how, Sampling):
            answers = fill_rows(engine, rows, marks=marks, limits=limits, sampling=how)
        else:
            found = search_blanks(engine, rows, marks=marks, limits=limits, search=how)
            answers = [[answer.ids for answer in row] for row in found]
        return answers if several else answers[0]

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int = 0,
        top_p: float = 1.0,
        eos_ids: Sequence[int] | None = None,
        how: Sampling | BeamSearch | None = None,
        **options: Unpack[GenerateOptions],
    ) -> list[list[int]]:
        """Continues texts, independently of each other.

            prompts [[5, 6, 7], [8]], eos_ids [2]    ->    [[9, 4], [3, 3, 1]]    new ids only

        Args:
          prompts: lists of ids of any lengths; nothing is added to them. Those of a model that
            fills blanks (ChatGLM-6B, GLM) have a mask and end in the start id, "[gMASK] sop".
          max_new_tokens: number of ids of the longest answer.
          temperature, top_k, top_p: see `Sampling`; greedy by default.
          eos_ids: ids that end an answer and are not part of it; None: the `eos_token_id` of the
            checkpoint's generation_config.json, else of its config.json, else its tokenizer's
            <|endoftext|>; []: none.
          how, **options: as of `fill_blanks`. And on_token: called with the index of a prompt and
            its new id as soon as the id is chosen, without end ids. Not with beam search, where
            ids are final only at the end.

        Returns:
          The new ids of each prompt, end id not included.

        Raises:
          UserError: a model that only fills blanks, no prompt, an empty one, a prompt that with its
            answer is longer than `config.max_positions`, an id outside the vocabulary, no known
            eos.
        """
        limits = Limits(given("eos_ids", eos_ids, self._eos_ids()), max_new_tokens)
        check_special_ids(self.config, eos_ids=limits.end_ids)
        rows = id_rows("generate", prompts, f"lm.complete(text), or {ENCODE}")
        on_token = options.pop("on_token", None)
        how = decoding(how, options, {"temperature": temperature, "top_k": top_k, "top_p": top_p})
        engine, marks = self._engine(), marks_of(self._origin, self.special)
        if isinstance(how, Sampling):
            return generate_rows(
                engine, rows, limits=limits, sampling=how, on_token=on_token, marks=marks
            )
        if on_token is not None:
            raise UserError("on_token is not for num_beams above 1: ids are final only at the end")
        found = search_texts(engine, rows, limits=limits, search=how, marks=marks)
        return [answer.ids for answer in found]

    def _eos_ids(self) -> list[int] | None:
        return eos_ids_of(self._origin, self.special)

    def _engine(self) -> Engine:
        """The engine of the present parameters; kept until one of their arrays is replaced."""
        leaves = jax.tree.leaves(self.params)
        if self._decoder is not None:
            known = jax.tree.leaves(self._decoder.params)
            if len(leaves) != len(known) or not all(map(operator.is_, leaves, known)):
                self._decoder = None  # frees the old one's copies before new ones are made
        self._decoder = self._decoder or Engine(self.config, self.params)
        return self._decoder
