"""Where chat templates run: a Jinja environment from which they reach nothing, within bounds.

A template comes with a checkpoint, from anyone. It sees the messages and the filters that
transformers gives to templates, and:

    {{ messages.__class__ }}                                   refused: an attribute out of reach
    {% for i in range(10 ** 9) %}                              refused: range of more than 100,000
    {% for i in range(99999) %}{% for j in range(99999) %}     refused after 5 seconds
    {% set ns.text = ns.text ~ ns.text %}, forty times         refused beyond 50 million characters
    {{ 'a' * 10 ** 12 }}, {{ 'a'.ljust(10 ** 12) }}            the same, before it is computed

Time is looked at on every line, so what one line does is bounded by itself: by the size of what
goes into each operation that makes text.
"""

import contextlib
import datetime
import functools
import json
import sys
import threading
import time
from collections.abc import Callable, ItemsView, Iterator, KeysView, Sequence, ValuesView
from types import FrameType
from typing import NoReturn, TypeVar, cast

import jinja2
from jinja2 import ext, nodes, visitor
from jinja2.exceptions import SecurityError
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

Value = TypeVar("Value")

# Characters that all operations of a rendering may make together, and that one may make at most.
MOST_CHARACTERS = 50_000_000
# Seconds of processor time of one rendering.
MOST_SECONDS = 5.0
# Texts and lists within one another, as one value holds them.
MOST_ELEMENTS = 50_000
_FILE = "<template>"  # where Jinja says that the code of a template comes from
_JOIN = "glm_jax_join"  # the filter that a ~ b becomes
_MAKE = "glm_jax_make"  # that a list, a tuple or an object goes through
# Around what the model says; Unicode sets them aside for use within programs.
ANSWER_MARKS = ("\ufdee", "\ufdef")
MARKS_ANSWERS = "glm_jax_marks_answers"
_ELEMENT = 10  # characters that an element of a list counts as
# Not of use to templates; `format` has widths of any size.
_LEFT_OUT = {"format", "pprint", "random", "urlize", "xmlattr"}


class TooMuch(SecurityError):
    """A template that takes more than its bounds."""


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of all templates; `rendering` sets the bounds of one rendering."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[ext.loopcontrols, _Generation],
            finalize=_checked,
        )
        self._left = threading.local()
        self.globals.pop("lipsum")
        self.globals.update(raise_exception=_raise_exception, strftime_now=_strftime_now)
        filters = {name: made for name, made in self.filters.items() if name not in _LEFT_OUT}
        filters |= {"tojson": _to_json, _JOIN: _join, _MAKE: _checked}
        self.filters.clear()
        self.filters.update({name: self._bounded(made) for name, made in filters.items()})
        self.concat = self._bounded_concat  # type: ignore[assignment]  # of blocks and macros

    @contextlib.contextmanager
    def rendering(self) -> Iterator[None]:
        """Bounds what is rendered inside, in this thread."""
        self._left.characters = MOST_CHARACTERS
        stop = time.thread_time() + MOST_SECONDS

        def in_template(frame: FrameType, event: str, argument: object) -> Callable | None:
            if frame.f_code.co_filename != _FILE:
                return None
            if time.thread_time() > stop:
                raise TooMuch(f"it takes more than {MOST_SECONDS:g} seconds")
            return in_template

        before = sys.gettrace()
        sys.settrace(in_template)
        try:
            yield
        finally:
            sys.settrace(before)

    def parsed(self, source: str) -> nodes.Template:
        """The tree of a template, in which what makes text goes through a filter."""
        tree = _Makers().visit(self.parse(source))
        tree.set_environment(self)
        return tree

    def spend(self, value: object) -> None:
        """Counts what an operation has made.

        Raises:
          TooMuch: with that, all of them have made more than `MOST_CHARACTERS`.
        """
        _checked(value)
        if isinstance(value, str | bytes | list | tuple):
            size = len(value) * (1 if isinstance(value, str | bytes) else _ELEMENT)
            left = getattr(self._left, "characters", MOST_CHARACTERS) - size
            if left < 0:
                raise TooMuch(f"it makes more than {MOST_CHARACTERS:,} characters")
            self._left.characters = left

    def call_binop(self, context: Context, operator: str, left: object, right: object) -> object:
        if operator == "%" and isinstance(left, str | bytes):
            raise SecurityError("formats with %")
        if operator == "**" or (operator == "*" and not _is_text(left) and not _is_text(right)):
            _check_power(operator, left, right)
        elif operator == "*":
            _check_cost(left, [right])
        made = super().call_binop(context, operator, left, right)
        self.spend(made)
        return made

    def call(__self, __context: Context, __obj: object, *args: object, **kwargs: object) -> object:
        _checked([args, kwargs])
        text = getattr(__obj, "__self__", None)
        if isinstance(text, str | bytes):
            args = tuple(map(_listed, args))
            _check_cost(text, [*args, *kwargs.values()])
        made = super().call(__context, __obj, *args, **kwargs)
        __self.spend(made)
        return made

    def wrap_str_format(self, value: object) -> None:
        if super().wrap_str_format(value) is not None:
            raise SecurityError("formats with str.format")

    def unsafe_undefined(self, obj: object, attribute: str) -> NoReturn:
        raise SecurityError(f"reaches for {attribute!r} of a {type(obj).__name__}")

    def _bounded(self, made: Callable[..., object]) -> Callable[..., object]:
        @functools.wraps(made)  # also what Jinja notes on filters that want the environment
        def bounded(*args: object, **kwargs: object) -> object:
            context = args[:1] if hasattr(made, "jinja_pass_arg") else ()
            given = list(map(_listed, args[len(context) :]))
            if given:
                _check_cost(given[0], [*given[1:], *kwargs.values()])
            value = _listed(made(*context, *given, **kwargs))
            self.spend(value)
            return value

        return bounded

    def _bounded_concat(self, parts: Sequence[str]) -> str:
        parts = list(parts)
        self.spend("".join(parts[:1]))
        for part in parts[1:]:
            self.spend(part)
        return "".join(parts)


class _Makers(visitor.NodeTransformer):
    """Lets a filter see what Jinja makes by itself: `a ~ b`, `[a, b]`, `(a, b)`, `{"a": b}`."""

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)  # in place
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), _JOIN)

    def visit_List(self, node: nodes.List) -> nodes.Node:
        return _filtered(self.generic_visit(node), _MAKE)

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        tree = self.generic_visit(node)
        return _filtered(tree, _MAKE) if node.ctx == "load" else tree


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(cast(nodes.Expr, node), name, [], [], None, None, lineno=node.lineno)


class _Generation(ext.Extension):
    """`{% generation %}..{% endgeneration %}` is what the model says.

    `ANSWER_MARKS` are written around it where the variable `MARKS_ANSWERS` is true.
    """

    tags = {"generation"}  # noqa: RUF012 - as Jinja's extensions have it

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        inside = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        begin, end = (
            nodes.If(
                nodes.Name(MARKS_ANSWERS, "load"),
                [nodes.Output([nodes.TemplateData(mark)])],
                [],
                [],
            )
            for mark in ANSWER_MARKS
        )
        return [begin, *inside, end]


def _join(items: Sequence[object]) -> str:
    return "".join(map(str, items))


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """As transformers has it: letters stay letters, and nothing is escaped for HTML."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    if len(form) > 100 or any(letter.isdigit() for letter in form):
        raise SecurityError("formats the time with widths")
    return datetime.datetime.now().strftime(form)


def _is_text(value: object) -> bool:
    return isinstance(value, str | bytes | list | tuple)


def _check_power(operator: str, left: object, right: object) -> None:
    if not isinstance(left, int) or not isinstance(right, int):
        return
    bits = left.bit_length()
    if (bits * right if operator == "**" else bits + right.bit_length()) > 10_000:
        raise TooMuch("it makes a number of thousands of digits")


def _listed(value: object) -> object:
    """What is made while it is read, as a list, so that its size is known."""
    return list(value) if isinstance(value, Iterator) else value


def _check_cost(value: object, others: Sequence[object]) -> None:
    """Refuses an operation that might make more than `MOST_CHARACTERS` before it is done.

    No filter or method makes more than the product of what goes in: `replace`, `join`, `center`.
    """
    widths = sum(abs(one) for one in others if isinstance(one, int))
    if (1 + _size(value)) * (1 + widths + sum(map(_size, others))) > 2 * MOST_CHARACTERS:
        raise TooMuch(f"it makes more than {MOST_CHARACTERS:,} characters")


def _size(value: object) -> int:
    """Characters of texts and elements of lists within a value.

    Raises:
      TooMuch: it holds more than `MOST_ELEMENTS`.
    """
    total, seen, pending = 0, 0, list[object]([value])
    while pending:
        one = pending.pop()
        if hasattr(one, "__len__"):
            total += 1 + len(one)
        if isinstance(one, dict):
            inside = [*one.keys(), *one.values()]
        elif isinstance(one, list | tuple | KeysView | ValuesView | ItemsView):
            inside = list(one)
        else:
            continue
        seen += len(inside)
        if seen > MOST_ELEMENTS:
            raise TooMuch(f"it makes lists of more than {MOST_ELEMENTS:,} elements")
        pending += inside
    return total


def _checked(value: Value) -> Value:
    """The value, if it does not hold too many others: a list of two lists of two lists of ..

    Raises:
      TooMuch: it does.
    """
    if isinstance(value, list | tuple | dict):
        _size(value)
    return value
