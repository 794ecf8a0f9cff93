"""The token stores of a corpus: one, or one per source of a mixture.

    STORE/store.json            a corpus of one source
    STORE/mixture.json          {"source": "task:mixed", "rates": {"wiki": 0.7, "books": 0.3}}, of a
                                SeqIO mixture
    STORE/wiki/store.json       .. and a store for each of its tasks

A mixture of the config (`data.mixture`) has its rates in the config, and no mixture.json.
"""

import dataclasses
import json
from pathlib import Path

from glm_jax.config.data import DataConfig
from glm_jax.data.store_path import store_name
from glm_jax.errors import UserError
from glm_jax.paths import expanded

INDEX = "mixture.json"


@dataclasses.dataclass(frozen=True)
class Part:
    """One store of a corpus.

    Attributes:
      name: of its source; "" for the only source.
      rate: its share of the rows, relative to the others'.
      directory: of the store.
      data: the config of this source alone.
    """

    name: str
    rate: float
    directory: Path
    data: DataConfig


def sources(data: DataConfig) -> list[Part]:
    """The stores that a config needs, one per source, whether built already or not.

    Raises:
      UserError: a source matches nothing.
    """
    if data.components:
        return [_component(data, part.name, part.source, part.rate) for part in data.components]
    return [Part("", 1.0, store_name(data), data)]


def built(parts: list[Part]) -> list[Part]:
    """The stores to open once `sources` are built: a SeqIO mixture has become several stores.

    Raises:
      UserError: a mixture.json is damaged, or a SeqIO mixture lies within one of the config.
    """
    if [part.name for part in parts] == [""]:
        return _within(parts[0])
    for part in parts:
        if (part.directory / INDEX).is_file():
            raise UserError(
                f"data.mixture must name tasks, not mixtures; {part.data.source!r} is one"
            )
    return parts


def _component(data: DataConfig, name: str, source: str, rate: float) -> Part:
    store = None if data.store is None else str(expanded(data.store) / name)
    own = dataclasses.replace(data, source=source, mixture=None, store=store)
    return Part(name, rate, store_name(own), own)


def _within(part: Part) -> list[Part]:
    """The parts of a directory that holds a mixture.json; otherwise the part itself."""
    index = part.directory / INDEX
    if not index.is_file():
        return [part]
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
        rates = {str(k): float(v) for k, v in content["rates"].items()}
        source = content.get("source", part.data.source)
        if not rates or min(rates.values()) <= 0:
            raise ValueError("rates must be above 0")
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{str(index)!r} is damaged ({error}); remove the store") from error
    if source != part.data.source:
        raise UserError(
            f"the token store {str(part.directory)!r} was made from data.source={source!r}, not "
            f"{part.data.source!r}"
        )
    return [
        Part(name, rate, part.directory / name, _of_task(part.data, name))
        for name, rate in rates.items()
    ]


def _of_task(data: DataConfig, name: str) -> DataConfig:
    return dataclasses.replace(data, source=f"task:{name}")
