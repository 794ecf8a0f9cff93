"""Chat templates of checkpoints: messages in, the text of a prompt out.

    {% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}
    [{"role": "user", "content": "hi <|user|>"}]   ->   [user's id, "hi <|user|>"]

They run in `glm_jax.tokenizers.sandbox`. A special token counts only where the template itself has
written it. Where a message spells one, an invisible character that no message has is put into it
while the template runs, so that it is not found again in what the template has made.
"""

import re
from collections.abc import Iterable, Mapping
from types import TracebackType

import jinja2
from jinja2 import meta
from jinja2.exceptions import SecurityError

from glm_jax.errors import UserError
from glm_jax.json_files import JsonObject, shown
from glm_jax.tokenizers.sandbox import (
    ANSWER_MARKS,
    MARKS_ANSWERS,
    MOST_CHARACTERS,
    Sandbox,
    TooMuch,
)

# The source of a template has some kilobytes.
MOST_SOURCE = 1_000_000
# Unicode sets these aside for use within programs.
_INVISIBLE = [chr(code) for code in range(0xFDD0, 0xFDF0) if chr(code) not in ANSWER_MARKS]

Tools = list[JsonObject]


class ChatTemplate:
    """A template, compiled when it is first used.

    Attributes:
      name: how errors call it.
      source: its text.
    """

    def __init__(self, source: str, name: str):
        self.source, self.name = source, name
        self._compiled: tuple[Sandbox, jinja2.Template, frozenset[str]] | None = None

    @property
    def variables(self) -> frozenset[str]:
        """The names that the template is given values for.

        Raises:
          UserError: it is no template; names the line.
        """
        return self._ready()[2]

    def render(self, variables: Mapping[str, object], marks: bool = False) -> str:
        """The text of a prompt.

        Args:
          variables: messages, tools and others, of the types of JSON.
          marks: put `ANSWER_MARKS` around what stands in `{% generation %}`.

        Raises:
          UserError: it is no template, refuses the messages, reaches for what it may not, does not
            end, or fails; names the line. Or the messages themselves hold such a mark.
        """
        sandbox, template, _ = self._ready()
        if marks and any(mark in text for text in _texts(variables) for mark in ANSWER_MARKS):
            raise UserError("messages must be without U+FDEE and U+FDEF, which mark answers")
        variables = {**variables, MARKS_ANSWERS: marks}
        parts, size = [], 0
        try:
            with sandbox.rendering():
                for part in template.root_render_func(template.new_context(dict(variables))):
                    parts.append(part)
                    size += len(part)
                    if size > MOST_CHARACTERS:
                        raise TooMuch(f"it makes more than {MOST_CHARACTERS:,} characters")
        except Exception as error:  # of any type: a template can do wrong whatever Python can
            where = _line(template, error.__traceback__)
            raise UserError(f"{self.name} {_what(error)}{where}") from error
        return "".join(parts)

    def _ready(self) -> tuple[Sandbox, jinja2.Template, frozenset[str]]:
        if self._compiled is None:
            if len(self.source) > MOST_SOURCE:
                raise UserError(f"{self.name} has more than {MOST_SOURCE:,} characters")
            sandbox = Sandbox()
            try:
                names = meta.find_undeclared_variables(sandbox.parse(self.source))
                with sandbox.rendering():  # what is constant is computed here
                    code = sandbox.compile(sandbox.parsed(self.source))
                template = jinja2.Template.from_code(sandbox, code, sandbox.make_globals(None))
            except jinja2.TemplateSyntaxError as error:
                raise UserError(
                    f"{self.name} is no Jinja template: {error.message} (line {error.lineno})"
                ) from error
            except Exception as error:
                raise UserError(f"{self.name} {_what(error)}") from error
            known = {*sandbox.globals, MARKS_ANSWERS}
            self._compiled = sandbox, template, frozenset(names) - known
        return self._compiled


class Disguise:
    """Marks the spellings of special tokens that messages contain; see the module.

    disguise = Disguise(["<|user|>"], messages)
    disguise.put_on("hi <|user|>")       "hi <.|user|>", with the invisible character for "."
    disguise.take_off("hi <.|user|>")    "hi <|user|>"
    """

    def __init__(self, spellings: Iterable[str], *values: object):
        """Args:
        spellings: of special tokens.
        values: all that `put_on` will be given.

        Raises:
          UserError: the texts have all the characters that Unicode sets aside for this.
        """
        used = {letter for value in values for text in _texts(value) for letter in text}
        free = [letter for letter in _INVISIBLE if letter not in used]
        if not free:
            raise UserError("the messages have every character from U+FDD0 to U+FDED")
        self._mark = free[0]
        longest_first = sorted(spellings, key=len, reverse=True)
        self._spellings = re.compile("|".join(map(re.escape, longest_first)) or "(?!)")

    def put_on(self, value: object) -> object:
        """A copy of a value of the types of JSON, each spelling in its texts marked."""
        if isinstance(value, str):
            return self._spellings.sub(lambda found: self._marked(found[0]), value)
        if isinstance(value, Mapping):
            return {self.put_on(key): self.put_on(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.put_on(one) for one in value]
        return value

    def take_off(self, text: str) -> str:
        """A text without the marks, also as JSON writes them where it keeps to ASCII."""
        return text.replace(self._mark, "").replace(f"\\u{ord(self._mark):04x}", "")

    def _marked(self, spelling: str) -> str:
        return spelling[:1] + self._mark + spelling[1:]


def _texts(value: object) -> Iterable[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, one in value.items():
            yield from _texts(key)
            yield from _texts(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _texts(one)


def _what(error: Exception) -> str:
    """What a template has done wrong, in half a sentence."""
    if isinstance(error, TooMuch):
        return f"is stopped: {error.message}"
    if isinstance(error, SecurityError):
        return f"is refused: it {error.message}"
    if isinstance(error, jinja2.UndefinedError):
        return f"cannot be filled in: {error.message}"
    if isinstance(error, jinja2.TemplateError) and type(error) is jinja2.TemplateError:
        return f"refuses these messages: {shown(error.message)}"
    return f"cannot be filled in ({type(error).__name__}: {shown(str(error))})"


def _line(template: jinja2.Template, trace: TracebackType | None) -> str:
    """Where in a template an error was raised: ` (line 3)`, or nothing."""
    line = None
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = template.get_corresponding_lineno(trace.tb_lineno)
        trace = trace.tb_next
    return "" if line is None else f" (line {line})"
