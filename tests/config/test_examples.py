"""The section `examples`: what it takes, and what does nothing beside it."""

import dataclasses

import pytest

from glm_jax.config import (
    Config,
    DataConfig,
    ExamplesConfig,
    ModelConfig,
    ObjectiveConfig,
    from_dict,
    to_dict,
)
from glm_jax.config.examples import OF_FILES
from glm_jax.errors import UserError

SOURCE = DataConfig(source="my/*.jsonl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss_on": "last"}, r"examples\.loss_on='last' does nothing without examples\.format"),
        ({"packed": False}, r"examples\.packed=False does nothing"),
        ({"format": "chatml"}, r"examples\.format must be one of .*'sharegpt'"),
        ({"format": "auto", "loss_on": "answers"}, r"examples\.loss_on must be one of"),
        ({"format": "auto", "max_source_length": 8}, "given together; got 8 and None"),
        (
            {"format": "auto", "max_source_length": 2, "max_target_length": 8},
            "max_source_length must be at least 3",
        ),
        ({"format": "auto", "prompt_field": ""}, r"examples\.prompt_field must be the key"),
        ({"format": "auto", "pretraining_rate": 0.1}, "given together; got 0.1 and None"),
        ({"format": "auto", "pretraining_source": "a.txt"}, "given together; got 0.0 and 'a.txt'"),
        ({"format": "auto", "pretraining_rate": 1.0, "pretraining_source": "a.txt"}, "below 1"),
        (
            {"format": "auto", "pretraining_rate": -0.1, "pretraining_source": "a"},
            "between 0 and 1",
        ),
    ],
)
def test_what_the_section_refuses(options, message):
    with pytest.raises(UserError, match=message):
        ExamplesConfig(**options)


def test_what_does_nothing_beside_examples_is_refused():
    examples = ExamplesConfig(format="auto")
    with pytest.raises(UserError, match=r"takes files of examples, such as .*got 'bundled'"):
        Config(examples=examples)
    with pytest.raises(UserError, match=r"not data\.mixture"):
        Config(examples=examples, data=DataConfig(mixture="a=b.txt@1"))
    causal = ObjectiveConfig(span_rate=0.0, causal_rate=1.0)
    with pytest.raises(UserError, match="says how texts are cut"):
        Config(examples=examples, data=SOURCE, objective=causal)
    mixed = dataclasses.replace(examples, pretraining_rate=0.5, pretraining_source="bundled")
    assert Config(examples=mixed, data=SOURCE, objective=causal).has_texts
    assert not Config(examples=examples, data=SOURCE).has_texts
    assert Config().has_texts


def test_the_objective_of_the_costs():
    examples = ExamplesConfig(format="auto")
    assert Config().cost_objective == Config().objective
    assert Config(examples=examples, data=SOURCE).cost_objective.document_rate == 1.0
    causal = Config(examples=examples, data=SOURCE, model=ModelConfig(position_encoding="rotary"))
    assert causal.cost_objective.causal_rate == 1.0


def test_run_json_keeps_it_and_lacks_it_in_older_versions():
    config = Config(examples=ExamplesConfig(format="messages", loss_on="last"), data=SOURCE)
    values = to_dict(config)
    assert from_dict(values) == config
    assert from_dict({"data": values["data"]}).examples == ExamplesConfig()
    names = {field.name for field in dataclasses.fields(ExamplesConfig)}
    assert names - set(OF_FILES) == {"packed", "pretraining_rate", "pretraining_source"}


def test_the_longest_example():
    """Of a cloze a causal model goes on to the end of the text, which nothing cuts."""
    both = {"max_source_length": 20, "max_target_length": 4}
    assert ExamplesConfig(format="seq2seq", **both).longest(False) == 24
    cloze = ExamplesConfig(format="cloze", pattern="{text} [MASK]", **both)
    assert cloze.longest(True) == 24
    assert cloze.longest(False) is None
    assert ExamplesConfig(format="seq2seq").longest(True) is None
