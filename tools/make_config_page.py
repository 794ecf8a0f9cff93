"""Makes docs/config.md from the dataclasses of a config: `python tools/make_config_page.py`.

A test holds the page and the dataclasses together; run this after changing one of them.
"""

import dataclasses
import re
import textwrap
from pathlib import Path
from typing import Any

from glm_jax.config import Config
from glm_jax.training.run.workdir import MAY_CHANGE

_WIDTH = 118
PAGE = Path(__file__).parents[1] / "docs" / "config.md"
_HEAD = """\
# Every option of a config

Made from the dataclasses of `glm_jax.config` by `tools/make_config_page.py`. In a config file an
option is an argument of its section, `TrainConfig(num_steps=2000)`; on a command line it is
`--set train.num_steps=2000`, repeatable, with `None`, `true` and `false` as they are written here.
`run.json` in a workdir holds the values of a run. Unknown names are refused, and the nearest known
one is suggested.

When a run is resumed, these may change: MAY_CHANGE. `data.source`, `data.tokenizer` and other
locations of data may change too, as long as their content does not. Other changes are refused by
name; [running.md](running.md) says how to make a run longer.
"""


def page() -> str:
    """The whole page."""
    names = ", ".join(f"`{name}`" for name in sorted(MAY_CHANGE))
    paragraphs = _HEAD.replace("MAY_CHANGE", names).split("\n\n")
    parts = ["\n\n".join(textwrap.fill(one, _WIDTH) for one in paragraphs) + "\n"]
    for section in dataclasses.fields(Config):
        parts.append(_section(section.name, getattr(Config(), section.name)))
    return "\n".join(parts)


def _section(name: str, section: Any, head: str = "##") -> str:
    """A section, and behind its options the parts that it has, with heads one level deeper."""
    summary, notes = split_docstring(type(section).__doc__ or "")
    title = f"{head} {name}: {type(section).__name__}"
    lines, parts = [title, "", textwrap.fill(_plain(summary), _WIDTH), ""], []
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(field.default):
            parts.append(_section(f"{name}.{field.name}", field.default, head + "#"))
            continue
        default = repr(field.default).replace("'", '"')
        lines += [
            f"- **`{name}.{field.name}`** `{_type(field)}` = `{default}`  ",
            textwrap.indent(textwrap.fill(_plain(notes[field.name]), _WIDTH - 2), "  "),
        ]
    return "\n".join(["\n".join(lines) + "\n", *parts])


def split_docstring(docstring: str) -> tuple[str, dict[str, str]]:
    """The text in front of "Attributes:", and what it says of each field.

    Fields that are described together, "a, b: of the rows", share their text.
    """
    text = textwrap.dedent("    " + docstring)
    summary, _, attributes = text.partition("Attributes:\n")
    notes: dict[str, str] = {}
    for entry in re.split(r"(?m)^  (?=[a-z])", textwrap.indent(textwrap.dedent(attributes), "  ")):
        names, colon, note = entry.partition(":")
        if colon:
            for one in names.split(","):
                notes[one.strip()] = note
    return summary, notes


def _type(field: "dataclasses.Field[Any]") -> str:
    return (
        field.type
        if isinstance(field.type, str)
        else getattr(field.type, "__name__", str(field.type))
    )


def _plain(text: str) -> str:
    """One line, in which Markdown takes nothing outside of code for emphasis."""
    parts = " ".join(text.split()).split("`")
    return "`".join(
        part if index % 2 else part.replace("*", "\\*") for index, part in enumerate(parts)
    )


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    main()
