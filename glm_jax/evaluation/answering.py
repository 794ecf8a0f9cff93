"""Answers that are generated: the kinds "generate", "fill" and "chat"."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar, cast

from glm_jax.errors import UserError, short
from glm_jax.evaluation.asked import Outcome, Prepared, hit
from glm_jax.evaluation.examples import Example, Line, column, render, texts_in
from glm_jax.evaluation.metrics import compared, first_k
from glm_jax.evaluation.prompting import Prompts, before_blank, count_blanks, has_blank
from glm_jax.generation.options import Options
from glm_jax.special_tokens import SPELLINGS
from glm_jax.tokenizers.framing import causal_prefix
from glm_jax.tokenizers.messages import checked_messages
from glm_jax.tokenizers.protocol import Tokenizer

Answer = TypeVar("Answer")

if TYPE_CHECKING:
    from glm_jax.evaluation.task_spec import Spec
    from glm_jax.generation.language_model import LanguageModel

# Prompts that are answered together, those of like length.
_ROWS = 16
# Between the answers to the blanks of one text, where they are compared as one.
_BETWEEN = " | "


def example(spec: "Spec", line: Line) -> Example:
    """An example of "generate"."""
    prompt, inserted = render(line, spec.prompt or "")
    return Example(line[0], prompt, texts_in(line, spec.answer), inserted=inserted)


def prepare_text(prompts: Prompts, spec: "Spec", one: Example) -> Prepared:
    """A prompt to be continued; of a model that fills blanks one with a blank, [gMASK] by default.

    Raises:
      UserError: several blanks, or for a causal model one with text behind it.
    """
    if prompts.config.continues_texts:
        before = before_blank(one.prompt) if has_blank(one.prompt) else one.prompt
        if before is None:
            raise UserError(
                f"{one.where}: a causal model continues a prompt; this one has text behind a blank"
            )
        ids, cut = prompts.begun(before, spec.max_new_tokens)
        return Prepared(one, ids, cut=cut)
    prompts.check_inert(one)
    prompts.check_answer(spec.max_new_tokens)
    if count_blanks(one.prompt) > 1:
        raise UserError(f"{one.where}: a prompt to generate from has one blank; kind 'fill' more")
    text = one.prompt if has_blank(one.prompt) else f"{one.prompt.rstrip()} {SPELLINGS['gmask']}"
    ids, cut = prompts.blanked(one, text)
    return Prepared(one, ids, cut=cut)


def ask_text(lm: "LanguageModel", spec: "Spec", some: Sequence[Prepared]) -> list[Outcome]:
    """Generates all answers, and compares them."""
    tokenizer = _tokenizer(lm)
    options = _options(spec)
    if lm.config.continues_texts:
        new_ids = _in_batches(some, lambda ids: lm.generate(ids, spec.max_new_tokens, **options))
        texts = [_continuation(tokenizer, one.prompt, new) for one, new in new_ids]
    else:
        filled = _in_batches(
            some,
            lambda ids: lm.fill_blanks(ids, max_new_tokens=spec.max_new_tokens, **options),
        )
        texts = [tokenizer.decode(new, skip_special=True) for _, (new,) in filled]
    return [_outcome(spec, one.example, text) for one, text in zip(some, texts, strict=True)]


def example_of_blanks(spec: "Spec", line: Line) -> Example:
    """An example of "fill", whose columns may hold blanks.

    Raises:
      UserError: as many answers as blanks are needed.
    """
    prompt, inserted = render(line, spec.prompt or "")
    answers, blanks = texts_in(line, spec.answer), count_blanks(prompt)
    if len(answers) != blanks or not blanks:
        raise UserError(
            f"{line[0]}: as many answers as blanks are needed; {spec.answer!r} has {len(answers)} "
            f"for {blanks}"
        )
    return Example(line[0], prompt, (_BETWEEN.join(map(str.strip, answers)),), inserted=inserted)


def prepare_blanks(prompts: Prompts, spec: "Spec", one: Example) -> Prepared:
    """A text with blanks.

    Raises:
      UserError: a causal model.
    """
    if prompts.config.continues_texts:
        raise UserError("a task of the kind 'fill' needs a model that fills blanks; this is causal")
    prompts.check_inert(one, may_hold_masks=True)
    prompts.check_answer(spec.max_new_tokens)
    ids, cut = prompts.blanked(one, one.prompt)
    return Prepared(one, ids, cut=cut)


def ask_blanks(lm: "LanguageModel", spec: "Spec", some: Sequence[Prepared]) -> list[Outcome]:
    """Fills all blanks of all texts; with a metric "first_K" by a search for the K best ways."""
    tokenizer, count = _tokenizer(lm), spec.candidates
    if count:
        fillings = [_candidates(lm, one.prompt, count, spec.max_new_tokens) for one in some]
    else:
        options = _options(spec)
        found = _in_batches(
            some, lambda ids: lm.fill_blanks(ids, max_new_tokens=spec.max_new_tokens, **options)
        )
        fillings = [[_joined(tokenizer, answers)] for _, answers in found]
    outcomes = []
    for one, best in zip(some, fillings, strict=True):
        outcome = _outcome(spec, one.example, best[0])
        (right,) = one.example.references
        for name in filter(first_k, spec.metrics):
            outcome.rows[name] = hit(right in best[: first_k(name)])
        outcomes.append(outcome)
    return outcomes


def example_of_chat(spec: "Spec", line: Line) -> Example:
    """An example of "chat": messages, or a prompt that is one of the user.

    Raises:
      UserError: both or neither, or messages that are none.
    """
    if (spec.prompt is None) == (spec.messages is None):
        raise UserError(
            f"{line[0]}: a task of the kind 'chat' has prompt = .. or messages = .., one of both"
        )
    references = texts_in(line, spec.answer)
    if spec.prompt is not None:
        prompt, _ = render(line, spec.prompt)
        return Example(line[0], prompt, references, messages=({"role": "user", "content": prompt},))
    given = column(line, spec.messages or "")
    if not isinstance(given, list):
        raise UserError(f"{line[0]}: {spec.messages!r} must be a list of messages; {short(given)}")
    try:
        messages = checked_messages(given)
    except UserError as error:
        raise UserError(f"{line[0]}: {error}") from error
    shown = str(messages[-1].get("content", ""))
    return Example(line[0], shown, references, messages=tuple(messages))


def prepare_chat(prompts: Prompts, spec: "Spec", one: Example) -> Prepared:
    """The prompt of a chat, as the model's template writes it; it is never cut.

    Raises:
      UserError: a tokenizer without a chat format, messages that it cannot write, a prompt that
        does not fit together with its answer.
    """
    try:
        ids = prompts.tokenizer.apply_chat_template(one.messages)
    except UserError as error:
        raise UserError(f"{one.where}: {error}") from error
    assert not isinstance(ids, str)  # which it is with tokenize=False
    most = prompts.config.max_positions
    if len(ids) + spec.max_new_tokens > most:
        raise UserError(
            f"{one.where}: the messages of {len(ids)} tokens and max_new_tokens="
            f"{spec.max_new_tokens} do not fit the model's context of {most} (model.max_positions)"
        )
    return Prepared(one, ids)


def ask_chat(lm: "LanguageModel", spec: "Spec", some: Sequence[Prepared]) -> list[Outcome]:
    """Answers all messages."""
    tokenizer, options = _tokenizer(lm), _options(spec)
    ends = lm.chat_end_ids
    found = _in_batches(
        some, lambda ids: lm.generate(ids, spec.max_new_tokens, eos_ids=ends, **options)
    )
    texts = [str(tokenizer.read_answer(new).get("content") or "") for _, new in found]
    return [_outcome(spec, one.example, text) for one, text in zip(some, texts, strict=True)]


def _outcome(spec: "Spec", one: Example, text: str) -> Outcome:
    """An answer, ended at `stop`, and its rows in the metrics that compare texts."""
    ends = [text.find(stop) for stop in spec.stop if stop in text]
    answer = text[: min(ends, default=len(text))].strip()
    names = [name for name in spec.metrics if not first_k(name)]
    return Outcome(
        answer, {name: compared(name, answer, one.references, spec.wording) for name in names}
    )


def _in_batches(
    some: Sequence[Prepared], ask: Callable[[list[list[int]]], Sequence[Answer]]
) -> list[tuple[Prepared, Answer]]:
    """Each example with what `ask` gives for its prompt; prompts of like length go together."""
    order = sorted(range(len(some)), key=lambda index: len(some[index].prompt))
    answers: dict[int, Answer] = {}
    for start in range(0, len(order), _ROWS):
        batch = order[start : start + _ROWS]
        found = ask([some[index].prompt for index in batch])
        answers |= dict(zip(batch, found, strict=True))
    return [(one, answers[index]) for index, one in enumerate(some)]


def _candidates(lm: "LanguageModel", ids: list[int], count: int, max_new_tokens: int) -> list[str]:
    """The most probable fillings of a text; of equal texts the first (`fill_candidates`)."""
    found = lm.search_fillings(ids, 2 * count, max_new_tokens=max_new_tokens)
    texts = [_joined(_tokenizer(lm), one.answers) for one in found]
    return list(dict.fromkeys(texts))[:count]


def _joined(tokenizer: Tokenizer, answers: Sequence[Sequence[int]]) -> str:
    return _BETWEEN.join(tokenizer.decode(ids, skip_special=True).strip() for ids in answers)


def _continuation(tokenizer: Tokenizer, prompt: Sequence[int], new: Sequence[int]) -> str:
    """The text of new ids as it stands behind a prompt."""
    text_ids = prompt[len(causal_prefix(tokenizer)) :]
    shown = len(tokenizer.decode(text_ids))
    return tokenizer.decode([*text_ids, *new], skip_special=True)[shown:]


def _options(spec: "Spec") -> Options:
    # Keys are checked where the task is read (`task_spec`), values by `decoding`.
    return cast(Options, dict(spec.decoding))


def _tokenizer(lm: "LanguageModel") -> Tokenizer:
    assert lm.tokenizer is not None  # without one no prompts were made
    return lm.tokenizer
