"""What a template may not do: each ends in one sentence, soon, in little memory."""

import sys

import pytest

from glm_jax.errors import UserError
from glm_jax.tokenizers import sandbox
from glm_jax.tokenizers.templates import ChatTemplate

VARIABLES = {"messages": [{"role": "user", "content": "ü"}], "text": "abc"}


def rendered(source):
    return ChatTemplate(source, "the template").render(VARIABLES)


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages.__class__ }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages['__class__'] }}",
        "{{ text|attr('__class__') }}",
        "{{ messages|map(attribute='__class__')|list }}",
        "{{ raise_exception.__globals__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ '{0.__class__}'.format(text) }}",
        "{{ '%999999999d' % 1 }}",
        "{{ strftime_now('%99999999d') }}",
    ],
)
def test_what_reaches_out_is_refused(source):
    with pytest.raises(UserError, match=r"^the template is refused: it .* \(line 1\)$"):
        rendered(source)


GROWS = "{% set n = namespace(t=START) %}{% for i in range(99) %}STEP{% endfor %}{{ n.t }}"


@pytest.mark.parametrize(
    ("start", "step"),
    [
        ("'ab'", "{% set n.t = n.t ~ n.t %}"),
        ("'ab'", "{% set n.t = n.t + n.t %}"),
        ("'ab'", "{% set n.t = n.t * 99 %}"),
        ("'ab'", "{% set n.t = n.t|replace('a', 'aa') %}"),
        ("'ab'", "{% set n.t = n.t.replace('a', 'aa') %}"),
        ("'ab'", "{% set n.t = [n.t, n.t]|join('') %}"),
        ("'ab'", "{% set n.t %}{{ n.t }}{{ n.t }}{% endset %}"),
        ("[1]", "{% set n.t = [n.t, n.t] %}"),
        ("[1]", "{% set n.t = (n.t, n.t) %}"),
        ("[1]", "{% set n.t = {'a': n.t, 'b': n.t} %}"),
        ("[1]", "{% set n.t = dict(a=n.t, b=n.t) %}"),
        ("[1]", "{% set n.t = n.t + n.t %}"),
        ("9", "{% set n.t = n.t * n.t %}"),
        ("9", "{% set n.t = n.t ** 9 %}"),
    ],
)
def test_what_doubles_is_stopped(start, step):
    with pytest.raises(UserError, match=r"^the template is stopped: it makes .* \(line 1\)$"):
        rendered(GROWS.replace("START", start).replace("STEP", step))


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'a' * 10 ** 12 }}",
        "{{ 'a'.ljust(10 ** 12) }}",
        "{{ 'a'|center(10 ** 12) }}",
        "{{ range(20000)|map('string')|join('x' * 100000) }}",
        "{{ ('x' * 100000).join(range(20000)|map('string')) }}",
        "{{ 'a'|indent(10 ** 12) }}",
        "{{ messages|tojson(indent=10 ** 12) }}",
        "{{ 10 ** 99999 }}",
        "{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}",
    ],
)
def test_what_is_too_large_is_stopped(source):
    with pytest.raises(UserError, match=r"^the template is stopped: it makes"):
        rendered(source)


@pytest.mark.parametrize(
    "body", ["", "{{ i }}", "{% set x = i %}", "{% if text == 'b' %}{% break %}{% endif %}"]
)
def test_what_does_not_end_is_stopped(body, monkeypatch):
    monkeypatch.setattr(sandbox, "MOST_SECONDS", 0.2)
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}BODY{% endfor %}{% endfor %}"
    with pytest.raises(UserError, match=r"it takes more than 0\.2 seconds|it makes more than"):
        rendered(loops.replace("BODY", body))


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("{% for i in range(10 ** 9) %}{% endfor %}", "Range too big"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError"),
        ("{% include 'other' %}", "no loader"),
        ("{% import 'os' as os %}", "no loader"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ missing.name }}", "'missing' is undefined"),
    ],
)
def test_what_fails_is_said(source, what):
    with pytest.raises(UserError, match=f"^the template cannot be filled in.*{what}"):
        rendered(source)


def test_what_templates_have_as_in_transformers():
    assert rendered("{{ messages|tojson }}") == '[{"role": "user", "content": "ü"}]'
    assert rendered("{{ messages[0]|tojson(indent=1) }}").startswith('{\n "role"')
    assert rendered("{{ {'b': 1, 'a': '<é>'}|tojson(ensure_ascii=True, sort_keys=True) }}") == (
        '{"a": "<\\u00e9>", "b": 1}'
    )
    assert rendered("{{ [1, 2]|tojson(separators=(',', ':')) }}") == "[1,2]"
    assert rendered("{% for i in [1, 2, 3] %}{% if i == 2 %}{% continue %}{% endif %}{{ i }}"
                    "{% endfor %}") == "13"  # fmt: skip
    assert rendered("a{% generation %}b{{ 1 }}{% endgeneration %}c") == "ab1c"
    assert rendered("a\n  {% if true %}\nb\n  {% endif %}\nc") == "a\nb\nc"
    assert len(rendered("{{ strftime_now('%Y-%m-%d') }}")) == 10
    assert rendered("{{ 'a' ~ 1 ~ [2, 'x'] }}{{ ('b' ~ 'c') }}") == "a1[2, 'x']bc"
    assert rendered("{% for a, b in {'k': 1}.items() %}{{ a }}{{ b }}{% endfor %}") == "k1"
    assert rendered("{{ text.split('b')[-1].strip() }}{{ 'b' in text }}") == "cTrue"


def test_nothing_is_left_behind():
    before = sys.gettrace()
    with pytest.raises(UserError):
        rendered("{{ 'a' * 10 ** 12 }}")
    assert sys.gettrace() is before
    template = ChatTemplate("{% for i in range(9) %}{{ 'x' * 5000000 }}{% endfor %}", "t")
    assert [len(template.render({})) for _ in range(2)] == [45_000_000] * 2  # bounds begin anew
