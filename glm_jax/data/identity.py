"""The identity of a run's data: the fingerprints of its stores, and what they were made from.

    {"wiki": {"fingerprint": "9b1d..", "rate": 0.7,
              "made_from": {"source": "wiki/*.txt", "files": [..], ..}},
     "books": ..}                                       a single source has the name ""

Two identities are equal if their fingerprints are, wherever the files are; the other entries
explain a difference.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from glm_jax.config.data import DataConfig
from glm_jax.data.store import TokenStore
from glm_jax.data.store_path import described_files, file_kind, is_scheme
from glm_jax.errors import UserError
from glm_jax.json_files import JsonObject

Identity = dict[str, JsonObject]

# The source of a config that names none; given together with a store, it is ignored.
_DEFAULT_SOURCE = DataConfig().source


class Store(Protocol):
    """What rows are made from: a `TokenStore`, or another store that knows its content.

    Attributes:
      fingerprint, description: see `TokenStore`.
    """

    @property
    def fingerprint(self) -> str: ...

    @property
    def description(self) -> JsonObject: ...

    def check(self) -> None:
        """Raises UserError if a file of it has turned out to be damaged."""
        ...


def identity(stores: Mapping[str, tuple[float, Store]]) -> Identity:
    """The identity of the stores of a run.

    Args:
      stores: rate and store of each source, by name. Stores that are only in memory are left out.
    """
    return {
        name: {"fingerprint": store.fingerprint, "rate": rate, "made_from": store.description}
        for name, (rate, store) in stores.items()
        if store.fingerprint
    }


def fingerprints(data: Identity) -> dict[str, str]:
    """The fingerprints alone, by name."""
    return {name: one["fingerprint"] for name, one in data.items()}


def difference(old: Identity, new: Identity) -> str | None:
    """Describes what has changed, in half a sentence; None if nothing has.

    "data.eval_fraction was 0.02, is 0.1; file 'my/a.txt' has changed"
    """
    said = []
    for name in [*old, *(name for name in new if name not in old)]:
        of = f"{name!r}: " if name else ""
        if name not in new or name not in old:
            said.append(f"the source {name!r} is {'gone' if name in old else 'new'}")
        elif old[name]["fingerprint"] != new[name]["fingerprint"]:
            before, now = old[name].get("made_from", {}), new[name].get("made_from", {})
            what = _fields(before, now) + file_differences(
                before.get("files", []), now.get("files", [])
            )
            said.append(of + ("; ".join(what) or "the tokens of the store have changed"))
        elif old[name].get("rate") != new[name].get("rate"):
            said.append(f"the rate of {name!r} was {old[name].get('rate')}, is {new[name]['rate']}")
    return "; ".join(said) or None


def _fields(before: JsonObject, now: JsonObject) -> list[str]:
    said = [
        f"data.{name} was {before[name]!r}, is {now[name]!r}"
        for name in ("text_field", "eval_fraction")
        if name in before and name in now and before[name] != now[name]
    ]
    old, new = before.get("settings", {}), now.get("settings", {})
    said += [
        f"{name} was {old.get(name)!r}, is {new.get(name)!r}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    if before.get("reference") != now.get("reference"):
        said.append("the log-probabilities are of another reference, or were made otherwise")
    if before.get("chat_fingerprint") != now.get("chat_fingerprint"):
        said.append("the chat format of the tokenizer is another")
    used = [one.get("tokenizer_fingerprint") for one in (before, now)]
    if used[0] != used[1]:
        said.append(f"the tokenizer (data.tokenizer={now.get('tokenizer')!r}) is another")
    return said


def file_differences(
    before: Sequence[JsonObject], now: Sequence[Mapping[str, object]]
) -> list[str]:
    """Describes the files that have changed, the first three; compared by content, then by name."""
    old, new = ({one.get("sha256"): str(one.get("name")) for one in part} for part in (before, now))
    gone = {Path(name).name: name for digest, name in old.items() if digest not in new}
    said = []
    for digest, name in new.items():
        if digest not in old:
            changed = gone.pop(Path(name).name, None)
            said.append(f"file {name!r} {'is new' if changed is None else 'has changed'}")
    said += [f"file {name!r} is gone" for name in gone.values()]
    more = [f"and {len(said) - 3} files more"] if len(said) > 3 else []
    if not said and [one.get("sha256") for one in before] != [one.get("sha256") for one in now]:
        said = ["the files come in another order, or another number of times"]
    return said[:3] + more


def disagreement(store: TokenStore, data: DataConfig) -> str | None:
    """Describes where a config contradicts what its store was made from; None if it does not.

    Settings that the store does not record are not compared. Files that are not on this host are
    not compared either if the config names the source that the store was made from.

    Returns:
      Half a sentence, such as "data.eval_fraction=0.1, not 0.02".
    """
    made = store.description
    if made.get("eval_fraction", data.eval_fraction) != data.eval_fraction:
        return f"data.eval_fraction={made['eval_fraction']!r}, not {data.eval_fraction!r}"
    if made.get("text_field", data.text_field) != data.text_field and _has_fields(made):
        return f"data.text_field={made['text_field']!r}, not {data.text_field!r}"
    source = made.get("source")
    if source is None or data.source == _DEFAULT_SOURCE != source:
        return None
    if is_scheme(source) or is_scheme(data.source):
        return None if source == data.source else f"data.source={source!r}, not {data.source!r}"
    try:
        now = described_files(data)
    except UserError as error:
        same = source == data.source
        return None if same else f"data.source={source!r}, not {data.source!r} ({error})"
    what = file_differences(made.get("files", []), now) if "files" in made else []
    return f"other text than data.source={data.source!r}: {'; '.join(what)}" if what else None


def _has_fields(made: JsonObject) -> bool:
    """Whether a store was made from records with fields, not from plain text."""
    kinds = {file_kind(Path(str(one.get("name")))) for one in made.get("files", [])}
    return is_scheme(str(made.get("source"))) or kinds != {"text"}
