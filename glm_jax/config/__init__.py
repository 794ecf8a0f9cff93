"""The config of a run: frozen dataclasses that check their own values.

Each section's docstring says what its fields mean (`config/model.py`, `config/compute.py`,
`config/data.py`, `config/examples.py`, `config/objective.py`, `config/published.py`,
`config/training.py`, `config/lora.py`, `config/preferences.py`, `config/rollouts.py`,
`config/policy.py`); `config/files.py` reads files and overrides. What a model is (`model`) stands
apart from how it runs (`compute`).
"""

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import TypeVar

from glm_jax.checks import Section
from glm_jax.config.compute import ComputeConfig
from glm_jax.config.data import DataConfig
from glm_jax.config.examples import ExamplesConfig
from glm_jax.config.lora import LoraConfig
from glm_jax.config.model import DROPOUT_RATES, ModelConfig, ResolvedModel
from glm_jax.config.moved import moved_of, record_renamed, with_moved
from glm_jax.config.objective import ObjectiveConfig
from glm_jax.config.policy import PolicyConfig
from glm_jax.config.preferences import LOSSES_OF_PAIRS, WITH_MARGIN, PreferencesConfig
from glm_jax.config.published import PublishedOptions
from glm_jax.config.rollouts import LOSSES_OF_ROLLOUTS, RolloutsConfig
from glm_jax.config.training import CROSS_ENTROPIES, MeshConfig, OptimizerConfig, TrainConfig
from glm_jax.errors import UserError
from glm_jax.json_files import shown

__all__ = [
    "CROSS_ENTROPIES",
    "ComputeConfig",
    "Config",
    "DataConfig",
    "ExamplesConfig",
    "LoraConfig",
    "MeshConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "OptimizerConfig",
    "PolicyConfig",
    "PreferencesConfig",
    "PublishedOptions",
    "ResolvedModel",
    "RolloutsConfig",
    "TrainConfig",
    "by_name",
    "differences",
    "field_types",
    "from_dict",
    "to_dict",
    "to_json",
]


@dataclasses.dataclass(frozen=True)
class Config:
    """The config of a run, one attribute per section.

    Of a `ResolvedModel`, `model` keeps what the model is; `compute` alone says how it runs.
    """

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    objective: ObjectiveConfig = ObjectiveConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    train: TrainConfig = TrainConfig()
    mesh: MeshConfig = MeshConfig()
    compute: ComputeConfig = ComputeConfig()
    examples: ExamplesConfig = ExamplesConfig()
    lora: LoraConfig = LoraConfig()
    preferences: PreferencesConfig = PreferencesConfig()
    rollouts: RolloutsConfig = RolloutsConfig()
    policy: PolicyConfig = PolicyConfig()

    def __post_init__(self):
        if isinstance(self.model, ResolvedModel):
            object.__setattr__(self, "model", self.model.with_sizes())
        if moved := moved_of(self.model):
            object.__setattr__(self, "compute", with_moved(self.compute, moved))
            object.__setattr__(self, "model", dataclasses.replace(self.model, moved=None))
        if self.data.batch_size % self.train.accumulation_steps:
            raise UserError(
                "data.batch_size must be a multiple of train.accumulation_steps; got "
                f"{self.data.batch_size} and {self.train.accumulation_steps}"
            )
        if self.examples.format is not None:
            self._check_beside_examples()
        self._check_choices()
        self._check_preferences()
        self._check_rollouts()
        self.objective.published.check_lengths(self.data.sequence_length, self.model.vocab_size)
        if self.train.local_start:
            self._check_local_start()
        if self.train.quantize_base is not None and not self.freezes:
            raise UserError(
                f"train.quantize_base={self.train.quantize_base!r} holds what is not trained as "
                "integers, and here all is trained; set lora.rank or train.trainable"
            )

    @property
    def resolved_model(self) -> ResolvedModel:
        """What all that computes is given: `model` with its sizes filled in, and `compute`."""
        return self.model.resolved(self.compute)

    @property
    def cost_objective(self) -> ObjectiveConfig:
        """The objective whose rows cost what those of this config do at most.

        Examples are taken for one answer that fills the row: from left to right, or in a blank.
        """
        if self.examples.format is None:
            return self.objective
        if self.model.continues_texts:
            return ObjectiveConfig(span_rate=0.0, causal_rate=1.0)
        return ObjectiveConfig(span_rate=0.0, document_rate=1.0)

    @property
    def has_texts(self) -> bool:
        """Whether rows are made of texts, all of them or some."""
        return self.examples.format is None or self.examples.pretraining_rate > 0.0

    def _check_choices(self) -> None:
        """Refuses candidates without the loss over them, and the loss without candidates."""
        if (self.train.loss == "choices") != self.examples.candidates:
            raise UserError(
                "train.loss='choices' and examples.candidates=True go together; got "
                f"train.loss={self.train.loss!r}, examples.candidates={self.examples.candidates}"
            )
        if self.examples.candidates and self.examples.pretraining_rate > 0.0:
            raise UserError(
                "examples.pretraining_rate must be 0 with examples.candidates; texts have none"
            )

    def _check_preferences(self) -> None:
        """Refuses pairs without a loss over them, such a loss without pairs, and idle options."""
        loss, form = self.train.loss, self.examples.format
        if (loss in LOSSES_OF_PAIRS) != (form == "preferences"):
            raise UserError(
                f"examples.format='preferences' and a loss over pairs ({', '.join(LOSSES_OF_PAIRS)}"
                f") go together; got examples.format={form!r}, train.loss={loss!r}"
            )
        if form == "preferences" and self.examples.pretraining_rate > 0.0:
            raise UserError(
                "examples.pretraining_rate must be 0 with examples.format='preferences'; texts are "
                "no pairs"
            )
        if self.examples.margin_field is not None and loss not in WITH_MARGIN:
            raise UserError(
                f"examples.margin_field={self.examples.margin_field!r} does nothing with "
                f"train.loss={loss!r}; it is of {', '.join(map(repr, WITH_MARGIN))}"
            )
        if loss == "reward" and not self.model.value_head:
            raise UserError("train.loss='reward' needs model.value_head=True")
        self.preferences.check_loss(loss)
        if self.has_reference:
            self._check_no_dropout("its reference")

    def _check_rollouts(self) -> None:
        """Refuses prompts without a loss over answers to them, such a loss without prompts, and
        options that do not fit."""
        loss, form, data = self.train.loss, self.examples.format, self.data
        if self.has_rollouts != (form == "prompts"):
            raise UserError(
                f"examples.format='prompts' and a loss over answers to them "
                f"({', '.join(LOSSES_OF_ROLLOUTS)}) go together; got examples.format={form!r}, "
                f"train.loss={loss!r}"
            )
        self.rollouts.check(
            loss, data.batch_size, self.train.num_steps, self.train.checkpoint_every
        )
        self.policy.check_loss(loss)
        if not self.has_rollouts:
            return
        if self.examples.pretraining_rate > 0.0:
            raise UserError("examples.pretraining_rate must be 0 with examples.format='prompts'")
        if self.has_values and not self.model.value_head:
            raise UserError("train.loss='ppo' needs model.value_head=True")
        if self.rollouts.max_new_tokens >= data.sequence_length:
            raise UserError(
                f"rollouts.max_new_tokens={self.rollouts.max_new_tokens} leaves no slots for a "
                f"prompt: raise data.sequence_length={data.sequence_length}"
            )
        self._check_no_dropout("the one that answered")

    def _check_no_dropout(self, other: str) -> None:
        """Refuses dropout where the policy is compared with another model."""
        if not self.has_dropout:
            return
        rates = {
            **{f"model.{name}": getattr(self.model, name) for name in DROPOUT_RATES[:2]},
            "model.prefix_dropout_rate": self.model.prefix_dropout_rate
            * bool(self.model.prefix_length),
            "lora.dropout": self.lora.dropout if self.lora.rank else 0.0,
        }
        there = [f"{name}={rate}" for name, rate in rates.items() if rate]
        raise UserError(
            f"train.loss={self.train.loss!r} compares the policy with {other}, and dropout would "
            f"be a part of the difference; set to 0 what is not: {', '.join(there)}"
        )

    @property
    def has_rollouts(self) -> bool:
        """Whether the loss is over answers that the policy gives while it is trained."""
        return self.train.loss in LOSSES_OF_ROLLOUTS

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares the policy with the model that the run begins with."""
        return self.preferences.compares(self.train.loss)

    @property
    def has_margins(self) -> bool:
        """Whether each pair has a margin of its own."""
        return self.examples.margin_field is not None

    @property
    def answers_of_a_cycle(self) -> int:
        """Of rollouts: the answers that a cycle makes before its first step."""
        return self.rollouts.batches * self.data.batch_size

    @property
    def has_values(self) -> bool:
        """Whether a value head is trained beside the policy."""
        return self.train.loss == "ppo"

    def _check_beside_examples(self) -> None:
        """Refuses texts where examples should be, or an objective for texts that there are not."""
        form, data = self.examples.format, self.data
        if data.mixture is not None:
            raise UserError(
                "examples.format takes data.source, a glob of files, not data.mixture; "
                "examples.pretraining_source mixes texts in"
            )
        if data.source.startswith(("bundled", "tfds:", "task:")):
            raise UserError(
                f"examples.format={form!r} takes files of examples, such as "
                f"data.source='my/*.jsonl'; got {data.source!r}"
            )
        if self.examples.pretraining_rate == 0.0 and self.objective != ObjectiveConfig():
            raise UserError(
                "the section objective says how texts are cut, and with examples.format="
                f"{form!r} there are none; leave it out, or give examples.pretraining_source and "
                "examples.pretraining_rate"
            )
        if self.objective.published.loader:
            raise UserError("objective.published.loader must be False with examples.format")

    @property
    def freezes(self) -> bool:
        """Whether some parameters are not trained."""
        return self.lora.rank > 0 or self.train.trainable is not None

    @property
    def has_dropout(self) -> bool:
        """Whether a training step draws any dropout."""
        return self.model.has_dropout or (self.lora.rank > 0 and self.lora.dropout > 0)

    def _check_local_start(self) -> None:
        """Refuses `train.local_start` where the model or `train.init_from` rules it out."""
        if self.train.init_from is not None:
            raise UserError(
                "train.local_start says how parameters are drawn, and those of train.init_from="
                f"{self.train.init_from!r} are not; leave one of them out"
            )
        if not self.model.has_position_table:
            raise UserError(
                "train.local_start takes a model with a position table; "
                f"model.position_encoding={self.model.position_encoding!r} has none"
            )
        if self.model.embed_dim % 2:
            raise UserError(
                f"train.local_start takes an even model.embed_dim; got {self.model.embed_dim}"
            )


S = TypeVar("S", bound=Section)

# Keys of `run.json` that are not sections of the config.
RECORDED = frozenset({"row_format"})


def field_types(section: Section) -> dict[str, object]:
    """The annotated type of each option of a section, by name; "published.loader" in a part."""
    hints = typing.get_type_hints(type(section))
    found: dict[str, object] = {}
    for field in dataclasses.fields(section):
        if dataclasses.is_dataclass(hints[field.name]):
            part = field_types(getattr(section, field.name))
            found |= {f"{field.name}.{key}": annotation for key, annotation in part.items()}
        else:
            found[field.name] = hints[field.name]
    return found


def to_dict(config: Config) -> dict[str, dict[str, object]]:
    """The config as nested plain values, as `run.json` holds it."""
    return dataclasses.asdict(config)


def from_dict(values: Mapping[str, Mapping[str, object]]) -> Config:
    """The inverse of `to_dict`; the other keys of a `run.json` (`RECORDED`) are ignored.

    Options may have the names of earlier versions (`glm_jax.config.moved`).

    Raises:
      ValueError: a section or a name that this version does not know, or a value of another type.
    """
    default, sections = Config(), {}
    renamed = record_renamed(values)
    for name in [field.name for field in dataclasses.fields(default)]:
        sections[name] = _section(name, getattr(default, name), renamed.get(name, {}))
    unknown = sorted(set(renamed) - set(sections) - RECORDED)
    if unknown:
        raise UserError(f"unknown config sections {unknown}; known: {sorted(sections)}")
    return Config(**sections)


def to_json(config: Config) -> str:
    """`to_dict` as indented JSON."""
    return json.dumps(to_dict(config), indent=2) + "\n"


def differences(old: Config, new: Config) -> dict[str, tuple[object, object]]:
    """The dotted names whose values differ: `{"model.num_layers": (2, 4)}`."""
    before, after = by_name(old), by_name(new)
    return {name: (before[name], after[name]) for name in before if before[name] != after[name]}


def _section(name: str, default: S, given: object) -> S:
    """A section or a part of one, of the type of `default`, from plain values."""
    if not isinstance(given, Mapping):
        raise UserError(f"{name} must be an object; got {shown(given)}")
    unknown = sorted(set(given) - {field.name for field in dataclasses.fields(default)})
    if unknown:
        raise UserError(f"unknown config names {[f'{name}.{key}' for key in unknown]}")
    parts = {
        key: _section(f"{name}.{key}", getattr(default, key), value)
        for key, value in given.items()
        if dataclasses.is_dataclass(getattr(default, key))
    }
    return type(default)(**{**given, **parts})


def by_name(config: Section) -> dict[str, object]:
    """All options by dotted name, "train.seed", from sections and their parts."""
    found: dict[str, object] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found |= {f"{field.name}.{key}": inner for key, inner in by_name(value).items()}
        else:
            found[field.name] = value
    return found
