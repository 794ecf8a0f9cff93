"""Filling blanks for a request: its rows, and what becomes of them.

    request -> plan(..): one Ask a text, order and copy -> events of the scheduler -> Filling

An order is a permutation of the blanks. The model reads part A once, and the answers of part B in
that order:

    part A  the [M] is [M]       order [1, 0]     part B  sop good  sop light
    blanks filled             second, then first          answers in the response: light, good
"""

import dataclasses
import itertools
import math
import secrets
import time
from collections.abc import Sequence

from glm_jax.errors import UserError
from glm_jax.generation.options import Limits, Marks
from glm_jax.generation.prompts import blank_prompts, check_blanks
from glm_jax.generation.sampling import Sampling
from glm_jax.serving import blank_protocol as protocol
from glm_jax.serving.asking import Ask, Chosen, Ended, Event, Scored
from glm_jax.serving.blank_ids import special_ids, spelled, tokenizer_of
from glm_jax.serving.blank_texts import BlankText
from glm_jax.serving.served import Served
from glm_jax.tokenizers.protocol import Tokenizer

# max_tokens where a request has none and the context leaves as many.
_USUAL_TOKENS = 64
# And where candidates are searched for, each of which costs many rows.
_USUAL_OF_CANDIDATES = 16


@dataclasses.dataclass(frozen=True)
class Row:
    """A text, filled in one order.

    Attributes:
      text: index of the text in the request.
      order: of its blanks.
      copy: which of `n`.
      ask: for the scheduler.
    """

    text: int
    order: tuple[int, ...]
    copy: int
    ask: Ask


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a request asks to be computed.

    Attributes:
      texts: of the request.
      ids: of each text.
      limits: of each text; those of answers.
      rows: to be filled; none if candidates are searched for.
    """

    texts: list[BlankText]
    ids: list[list[int]]
    limits: list[Limits]
    rows: list[Row]


def plan(served: Served, body: protocol.BlanksRequest, client: str = "") -> Plan:
    """Reads and checks a request; computes nothing.

    Raises:
      UserError: a model that does not fill blanks; a text without one, or that does not fit; an
        order that is no permutation; limits that are exceeded; options that exclude each other.
    """
    marks, ends = special_ids(served)
    texts = texts_of(body)
    if not texts:
        raise UserError("text is an empty list; give one text at least")
    _check_rows(served, len(texts))
    tokenizer = tokenizer_of(served)
    for text in texts:
        text.check()
    ids = [text.ids(tokenizer, served.decoder.context) for text in texts]
    limits = [
        _limits(served, body, (len(row), len(text.blanks)), ends)
        for row, text in zip(ids, texts, strict=True)
    ]
    seed = secrets.randbits(63) if body.seed is None else body.seed
    how = Sampling(body.temperature, body.top_k, body.top_p, seed)
    for row, limit in zip(ids, limits, strict=True):
        check_blanks([row], served.model.config, marks, limit, how)
    if body.candidates is not None:
        _check_candidates(served, body)
        return Plan(texts, ids, limits, [])
    orders = _orders(served, body, [len(text.blanks) for text in texts])
    _check_rows(served, sum(map(len, orders)) * body.n)
    return Plan(
        texts, ids, limits, _rows(served, body, (marks, how, client), (ids, limits, orders))
    )


def texts_of(body: protocol.BlanksRequest) -> list[BlankText]:
    """The texts of a request, cut at their blanks."""
    if isinstance(body.text, str):
        return [BlankText.read(body.text)]
    parts = [one for one in body.text if isinstance(one, protocol.TextPart | protocol.BlankPart)]
    if parts:
        return [_cut(parts)]
    several = [one for one in body.text if isinstance(one, str | list)]
    return [BlankText.read(one) if isinstance(one, str) else _cut(one) for one in several]


def _cut(parts: protocol.Parts) -> BlankText:
    """The text of parts."""
    return BlankText.of_parts(
        (False, part.text) if isinstance(part, protocol.TextPart) else (True, f"[{part.blank}]")
        for part in parts
    )


def _limits(
    served: Served,
    body: protocol.BlanksRequest,
    sizes: tuple[int, int],
    ends: Sequence[int],
) -> Limits:
    """When answers to a text of so many tokens and blanks end."""
    asked, (tokens, blanks) = body.max_tokens, sizes
    usual = _USUAL_TOKENS if body.candidates is None else _USUAL_OF_CANDIDATES
    context = served.decoder.context
    room = (context - tokens) // blanks
    most = min(room, served.model.config.table_rows - 1, served.limits.new_tokens or room)
    if asked is None and most >= 1:
        return Limits(ends, min(usual, most))
    if asked is not None and asked < 1:
        raise UserError(f"max_tokens must be at least 1; got {asked}")
    if asked is None or asked > room:
        wanted = "" if asked is None else f" of max_tokens={asked}"
        raise UserError(
            f"a text of {tokens} tokens with {_count(blanks)}{wanted} does not fit the context of "
            f"{context} tokens"
        )
    if asked > most:
        raise UserError(f"max_tokens must be at most {most}; got {asked}")
    return Limits(ends, asked)


def _count(blanks: int) -> str:
    return "1 blank" if blanks == 1 else f"{blanks} blanks"


def _check_rows(served: Served, rows: int) -> None:
    if rows > served.limits.rows:
        raise UserError(
            f"texts times orders times n must be at most {served.limits.rows} in one request; "
            f"got {rows}"
        )


def _check_candidates(served: Served, body: protocol.BlanksRequest) -> None:
    most = served.limits.candidates
    assert body.candidates is not None
    if body.candidates > most:
        raise UserError(f"candidates must be at most {most}; got {body.candidates}")
    others = ("order", "temperature", "top_k", "top_p", "seed", "n", "logprobs")
    if both := [name for name in others if name in body.model_fields_set and _acts(body, name)]:
        raise UserError(
            "candidates are searched for from left to right and not sampled; leave out "
            f"{', '.join(both)}"
        )


def _acts(body: protocol.BlanksRequest, name: str) -> bool:
    return getattr(body, name) != protocol.BlanksRequest.model_fields[name].default


def _orders(
    served: Served, body: protocol.BlanksRequest, counts: Sequence[int]
) -> list[list[tuple[int, ...]]]:
    """The orders of each text, of so many blanks."""
    if body.order is None:
        return [[tuple(range(count))] for count in counts]
    if body.order == "all":
        # One more than is allowed: the sum is refused afterwards, and 20 blanks cost nothing.
        some = served.limits.rows + 1
        return [[*itertools.islice(itertools.permutations(range(n)), some)] for n in counts]
    several = [one for one in body.order if isinstance(one, list)]
    asked = [tuple(one) for one in several or [[one for one in body.order if isinstance(one, int)]]]
    for index, count in enumerate(counts):
        for order in asked:
            if sorted(order) != list(range(count)):
                raise UserError(
                    f"order must hold each of the {_count(count)} of text {index} once, as "
                    f"{list(range(count))} does; got {list(order)}"
                )
    return [asked for _ in counts]


def _rows(
    served: Served,
    body: protocol.BlanksRequest,
    common: tuple[Marks, Sampling, str],
    texts: tuple[list[list[int]], list[Limits], list[list[tuple[int, ...]]]],
) -> list[Row]:
    marks, how, client = common
    deadline = time.monotonic() + served.limits.seconds
    before: dict[tuple[int, ...], int] = {}
    rows = []
    for index, (ids, limits, orders) in enumerate(zip(*texts, strict=True)):
        prompt = blank_prompts([ids], marks, limits, how)[0]
        # An order draws what it would draw without the other orders: these are no copies of it.
        first = body.n * before.setdefault(tuple(ids), 0)
        before[tuple(ids)] += 1
        for order, copy in itertools.product(orders, range(body.n)):
            blanks = [prompt.blanks[blank] for blank in order]
            ask = Ask(
                dataclasses.replace(prompt, blanks=blanks),
                alternatives=body.logprobs or 0,
                copy=first + copy,
                client=client,
                deadline=deadline,
            )
            rows.append(Row(index, order, copy, ask))
    return rows


class Progress:
    """What has become of a row so far.

    Attributes:
      ended: why it ended; None: it has not.
    """

    def __init__(self, row: Row):
        self.row = row
        self.ended: Ended | None = None
        self._chosen: list[list[Chosen]] = [[] for _ in row.order]

    def add(self, event: Event) -> None:
        """Takes note of what the scheduler reports."""
        if isinstance(event, Chosen):
            self._chosen[event.answer].append(event)
        elif isinstance(event, Ended):
            self.ended = event

    @property
    def tokens(self) -> int:
        """Ids so far, ends included."""
        return sum(map(len, self._chosen))

    def filling(self, served: Served, text: BlankText, with_tokens: bool) -> protocol.Filling:
        """The text, filled with what there is."""
        tokenizer, order = tokenizer_of(served), self.row.order
        chosen = [self._chosen[order.index(blank)] for blank in range(len(order))]
        ids = [[one.id for one in answer if not one.ends] for answer in chosen]
        ends = set(self.row.ask.prompt.limits.end_ids)
        total = math.fsum(_log_probability(answer) for answer in chosen)
        answers = [
            protocol.BlankAnswer(
                text=spelled(tokenizer, answer).strip(),
                probability=math.exp(_log_probability(events)),
                finish_reason=self._reason(events),
                tokens=[_token(tokenizer, one, ends) for one in events] if with_tokens else None,
            )
            for answer, events in zip(ids, chosen, strict=True)
        ]
        return protocol.Filling(
            order=list(order),
            index=self.row.copy,
            text=text.filled(tokenizer, ids),
            answers=answers,
            probability=math.exp(total),
            log_probability=total,
        )

    def _reason(self, events: Sequence[Chosen]) -> protocol.Reason:
        if events and events[-1].ends:
            return "stop"
        full = len(events) == self.row.ask.prompt.limits.max_new_tokens
        return "length" if full else "deadline"


def text_tokens(served: Served, ids: Sequence[int]) -> list[protocol.TextToken]:
    """The tokens of a text, special ones spelled."""
    tokenizer = tokenizer_of(served)
    special = tokenizer.special
    framing = {*special.masks, special.cls, special.eos}
    return [
        protocol.TextToken(
            id=id_,
            text=tokenizer.decode([id_]) if id_ in framing else spelled(tokenizer, [id_]),
        )
        for id_ in ids
    ]


def _scored(one: Chosen) -> Scored:
    assert one.scored is not None  # `_rows` asks for log-probabilities
    return one.scored


def _log_probability(events: Sequence[Chosen]) -> float:
    return math.fsum(_scored(one).log_probability for one in events)


def _token(tokenizer: Tokenizer, one: Chosen, ends: set[int]) -> protocol.Token:
    scored = _scored(one)
    others = [
        protocol.Alternative(
            id=id_,
            text="" if id_ in ends else spelled(tokenizer, [id_]),
            probability=math.exp(log_probability),
            ends=id_ in ends,
        )
        for id_, log_probability in scored.alternatives
    ]
    return protocol.Token(
        id=one.id,
        text="" if one.ends else spelled(tokenizer, [one.id]),
        probability=math.exp(scored.log_probability),
        ends=one.ends,
        alternatives=others,
    )
