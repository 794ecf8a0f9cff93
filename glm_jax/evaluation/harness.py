"""An adapter for lm-evaluation-harness (EleutherAI, 0.4), of the extra "lm-eval".

    import lm_eval
    from glm_jax.evaluation.harness import Harness

    lm_eval.simple_evaluate(model=Harness(glm_jax.load("runs/demo")), tasks=["lambada_openai"])

                          a causal model                a model that fills blanks
    loglikelihood         [gMASK] sop context | text    [CLS] context [gMASK] | text
    loglikelihood_rolling the text in windows that overlap by half, from left to right
    generate_until        what follows the context      what fills the [gMASK] behind the context

Where models fill blanks, the context is part A and sees all of itself; no end id is scored, as in
the published zero-shot choices. Contexts and continuations are plain text: "[MASK]" in them stays
six characters. Contexts that are too long lose tokens in front.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from glm_jax.errors import UserError, did_you_mean, how_to_install
from glm_jax.evaluation.examples import Example
from glm_jax.evaluation.prompting import Prompts
from glm_jax.json_files import JsonObject
from glm_jax.tokenizers.framing import causal_prefix

try:
    from lm_eval.api.model import LM
except ImportError as error:
    raise UserError(
        "glm_jax.evaluation.harness needs the package lm-eval, which is not installed; install it "
        f"with: {how_to_install('lm-eval')}"
    ) from error

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from glm_jax.generation.language_model import LanguageModel

_MAX_GEN_TOKS = 256  # the harness's own default
_TAKEN = ("until", "max_gen_toks", "do_sample", "temperature", "top_k", "top_p")


class Harness(LM):
    """A `LanguageModel` as the harness asks it.

    Attributes:
      lm: the model.
      cut: number of requests whose context did not fit the model whole.
    """

    def __init__(self, lm: "LanguageModel", batch_size: int = 16):
        """Args:
        lm: with a tokenizer.
        batch_size: contexts from which texts are generated together.

        Raises:
          UserError: the model has no tokenizer.
        """
        super().__init__()
        if lm.tokenizer is None:
            raise UserError("the harness's tasks are texts; the checkpoint holds no tokenizer")
        self.lm, self._batch_size, self.cut = lm, batch_size, 0
        self._tokenizer, self._prompts = lm.tokenizer, Prompts(lm.tokenizer, lm.config)

    def loglikelihood(self, requests: "list[Instance]") -> list[tuple[float, bool]]:
        """log p(continuation | context) of each request, and whether greedy decoding gives it.

        Raises:
          UserError: a continuation that does not fit the model.
        """
        pairs = [
            self._prompts.following(Example(f"request {index}", ""), *one.args)
            for index, one in enumerate(requests)
        ]
        self.cut += sum(pair.cut for pair in pairs)
        scores = self.lm.answer_scores(
            [pair.prompt for pair in pairs], [pair.answer for pair in pairs]
        )
        return [(float(one.log_probabilities.sum()), bool(one.best.all())) for one in scores]

    def loglikelihood_rolling(self, requests: "list[Instance]") -> list[float]:
        """log p(text) of each request, its first token included, which nothing precedes."""
        causal, special = self.lm.config.continues_texts, self._tokenizer.special
        prefix = causal_prefix(self._tokenizer) if causal else [special.cls]
        nothing = prefix if causal else self._prompts.before_gmask("")[0]
        found = []
        for one in requests:
            ids = self._tokenizer.encode(one.args[0])
            scores = self.lm.answer_scores([nothing], [ids[:1]]) if ids else []
            total = sum(float(score.log_probabilities.sum()) for score in scores)
            if len(ids) > 1:
                rest = self.lm.token_log_probabilities(ids, prefix_ids=prefix)
                total += float(rest.sum())
            found.append(total)
        return found

    def generate_until(self, requests: "list[Instance]") -> list[str]:
        """What follows each context, up to one of its texts `until`, without it.

        Greedy unless a request has do_sample.

        Raises:
          UserError: an option that the model does not have, or no room for an answer.
        """
        groups: dict[str, list[int]] = {}
        for index, one in enumerate(requests):
            groups.setdefault(json.dumps(one.args[1], sort_keys=True), []).append(index)
        answers: dict[int, str] = {}
        for options, indices in groups.items():
            contexts = [requests[index].args[0] for index in indices]
            found = self._generated(contexts, json.loads(options))
            answers |= dict(zip(indices, found, strict=True))
        return [answers[index] for index in range(len(requests))]

    def _generated(self, contexts: Sequence[str], options: JsonObject) -> list[str]:
        """What follows some contexts under the same options."""
        for name in options:
            if name not in _TAKEN:
                raise UserError(
                    f"generation_kwargs has {name!r}{did_you_mean(name, _TAKEN)}; there are "
                    f"{', '.join(_TAKEN)}"
                )
        until = options.get("until", [])
        stops = [until] if isinstance(until, str) else list(until or [])
        most = int(options.get("max_gen_toks", _MAX_GEN_TOKS))
        sampled = options.get("do_sample", False)
        names = ("temperature", "top_k", "top_p")
        how = {name: options[name] for name in names if name in options} if sampled else {}
        rows = [self._row(context, most) for context in contexts]
        self.cut += sum(cut for _, cut in rows)
        order = sorted(range(len(rows)), key=lambda index: len(rows[index][0]))
        texts: dict[int, str] = {}
        for start in range(0, len(order), self._batch_size):
            batch = order[start : start + self._batch_size]
            ids = [rows[index][0] for index in batch]
            if self.lm.config.continues_texts:
                new = self.lm.generate(ids, most, **how)
            else:
                new = [row[0] for row in self.lm.fill_blanks(ids, max_new_tokens=most, **how)]
            for index, row, of in zip(batch, ids, new, strict=True):
                texts[index] = self._text(row, of)
        return [_until(texts[index], stops) for index in range(len(rows))]

    def _row(self, context: str, most: int) -> tuple[list[int], bool]:
        if self.lm.config.continues_texts:
            return self._prompts.begun(context, most)
        self._prompts.check_answer(most)
        return self._prompts.before_gmask(context)

    def _text(self, row: Sequence[int], new: Sequence[int]) -> str:
        """The text of new ids, as it stands behind a context."""
        special = {*vars(self._tokenizer.special).values()}
        context = [id_ for id_ in row if id_ not in special]
        shown = len(self._tokenizer.decode(context))
        return self._tokenizer.decode([*context, *new], skip_special=True)[shown:]


def _until(text: str, stops: Sequence[str]) -> str:
    ends = [text.find(stop) for stop in stops if stop and stop in text]
    return text[: min(ends, default=len(text))]
