"""Clozes: what stands in the text, what is learnt, and what is refused with file and line."""

import json

import pytest

import glm_jax
from glm_jax.config import Config, DataConfig, ModelConfig
from glm_jax.config.examples import ExamplesConfig
from glm_jax.config.files import apply_overrides
from glm_jax.data.examples.clozes import ClozeMaker
from glm_jax.errors import UserError
from glm_jax.pipeline.batches import source

TOKENIZER = glm_jax.load_tokenizer("bundled")
RTE = {
    "premise": "It rained all night, and the field is wet.",
    "hypothesis": "The field is wet.",
    "label": "entailment",
}
STARS = {"good": "great", "bad": "a terrible waste"}


def maker(fills_blanks=True, **options):
    return ClozeMaker(ExamplesConfig(format="cloze", **options), TOKENIZER, fills_blanks)


def texts(example):
    """Part A and what is learnt."""
    part_a = TOKENIZER.decode(example.tokens[: example.prefix].tolist())
    return part_a, TOKENIZER.decode(example.targets[example.learnt].tolist()).strip()


def test_a_named_pattern():
    (made,) = maker(pattern="rte").examples(RTE)
    assert texts(made) == (
        '[CLS]"The field is wet" ? [MASK], "It rained all night, and the field is wet."'
        "<|endoftext|>",
        "Yes<|endofpiece|>",
    )
    (other,) = maker(pattern="rte/4").examples({**RTE, "label": "not_entailment"})
    assert texts(other) == (
        "[CLS]It rained all night, and the field is wet. question: The field is wet True or "
        "False? answer: [MASK]<|endoftext|>",
        "false<|endofpiece|>",
    )


def test_a_pattern_of_ones_own_with_verbalizers_of_several_tokens():
    made = maker(pattern="{text} It was [MASK].", verbalizers=STARS, label_field="stars")
    record = {"text": "Never again.", "stars": "bad"}
    (example,) = made.examples(record)
    assert texts(example)[1] == "a terrible waste<|endofpiece|>"
    assert example.learnt.sum() == len(TOKENIZER.encode("a terrible waste")) + 1
    (cloze,) = made.clozes(record)
    assert cloze.candidates == ("great", "a terrible waste")
    # Without verbalizers the label is the filling.
    (example,) = maker(pattern="{text} It was [MASK].").examples({"text": "Oh.", "label": "so"})
    assert texts(example)[1] == "so<|endofpiece|>"


def test_booleans_are_labels_as_json_writes_them():
    record = {"passage": "Water is wet.", "question": "is water wet", "label": True}
    assert texts(maker(pattern="boolq").examples(record)[0])[1] == "Yes<|endofpiece|>"
    assert texts(maker(pattern="boolq/1").examples(record)[0])[1] == "true<|endofpiece|>"


def test_the_longer_side_loses_its_last_tokens():
    """20 tokens of part A: the premise loses all that is too much, the hypothesis nothing."""
    whole = maker(pattern="rte").examples(RTE)[0]
    limits = {"max_source_length": whole.prefix - 4, "max_target_length": 8}
    (cut,) = maker(pattern="rte", **limits).examples(RTE)
    assert cut.prefix == whole.prefix - 4
    assert texts(cut)[0].startswith('[CLS]"The field is wet" ? [MASK], "It rained all night')
    assert texts(cut)[0].endswith('"<|endoftext|>')
    assert texts(cut)[1] == "Yes<|endofpiece|>"
    # Of COPA only the premise may be cut.
    copa = {"premise": "My body cast a shadow over the grass.", "question": "cause", "label": 0}
    copa |= {"choice1": "The sun was rising.", "choice2": "The grass was cut."}
    whole = maker(pattern="copa").examples(copa)[0]
    limits = {"max_source_length": whole.prefix - 3, "max_target_length": 16}
    (cut,) = maker(pattern="copa", **limits).examples(copa)
    assert '"the sun was rising" or "the grass was cut"? My body cast' in texts(cut)[0]
    assert " because [MASK]." in texts(cut)[0]
    limits = {"max_source_length": 8, "max_target_length": 16}
    with pytest.raises(UserError, match=r"leaves no room for its columns; raise examples.max_sour"):
        maker(pattern="copa", **limits).examples(copa)


def test_what_is_kept_whole_is_not_cut():
    """The word stands last on its side, and the text in front of it is cut."""
    record = {"text": "The sun was rising over the hills.", "word": "a quiet morning", "label": "x"}
    options = {"pattern": "{text} So much for {word:whole}: [MASK]", "max_target_length": 4}
    whole = maker(**options, max_source_length=64).examples(record)[0]
    (cut,) = maker(**options, max_source_length=whole.prefix - 3).examples(record)
    assert cut.prefix == whole.prefix - 3
    assert " So much for a quiet morning: [MASK]" in texts(cut)[0]
    assert texts(cut)[0].startswith("[CLS]The sun was rising over")


def config_of(path, **options):
    return Config(
        ModelConfig(vocab_size=7168, num_layers=1, embed_dim=8, num_heads=2),
        DataConfig(source=str(path), sequence_length=64, batch_size=2, eval_fraction=0.3),
        examples=ExamplesConfig(format="cloze", **options),
    )


def written(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_rows_of_a_file(tmp_path, monkeypatch):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    records = [{**RTE, "premise": f"{RTE['premise']} {n}"} for n in range(20)]
    found = source(config_of(written(tmp_path / "a.jsonl", records), pattern="rte"), "train")
    batch, counts = found.builders[0].build([0], [0])
    assert counts["examples"] >= 1
    yes = TOKENIZER.encode('" ? Yes')[-1]
    learnt = batch.targets[0][batch.loss_weights[0] > 0].reshape(-1, 2)
    assert set(map(tuple, learnt.tolist())) == {(yes, TOKENIZER.special.end)}


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {**RTE, "label": "entailmnt"},
            r"line 2: 'label' is 'entailmnt', which examples.verbalizers do not have "
            r"\(did you mean 'entailment'\?\): entailment, not_entailment",
        ),
        ({"premis": "a", "hypothesis": "b", "label": "entailment"}, "line 2: there is no column"),
        ({**RTE, "premise": ["a"]}, "line 2: 'premise' must be a text"),
        ({**RTE, "premise": "a [MASK]"}, r"line 2: .* spells a special token"),
    ],
)
def test_what_is_wrong_on_a_line(tmp_path, monkeypatch, record, message):
    monkeypatch.setenv("GLM_JAX_CACHE", str(tmp_path / "cache"))
    path = written(tmp_path / "a.jsonl", [RTE, record, {**RTE, "premise": "c"}])
    with pytest.raises(UserError, match=message):
        source(config_of(path, pattern="rte"), "train")
    assert not list((tmp_path / "cache").rglob("examples.json"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "cloze"}, "needs examples.pattern"),
        ({"format": "cloze", "pattern": "{text} good"}, "examples.pattern must have one blank"),
        ({"format": "cloze", "pattern": "rtee"}, "did you mean 'rte'"),
        ({"format": "cloze", "pattern": "rte", "verbalizers": {"a": "b"}}, "two labels at least"),
        ({"format": "cloze", "pattern": "rte", "verbalizers": "{"}, "two labels at least"),
        ({"format": "cloze", "pattern": "rte", "verbalizers": {"a": "b", "c": " b"}}, "differ"),
        ({"format": "messages", "pattern": "rte"}, "examples.pattern='rte' does nothing with"),
        ({"format": "cloze", "pattern": "rte", "loss_on": "all"}, "examples.loss_on='all' does no"),
        ({"pattern": "rte"}, "does nothing without examples.format"),
    ],
)
def test_what_is_wrong_in_a_config(options, message):
    with pytest.raises(UserError, match=message):
        ExamplesConfig(**options)


def test_verbalizers_are_kept_as_json():
    """So a config is the same after it was written and read, and they can be given in a shell."""
    made = ExamplesConfig(format="cloze", pattern="{text} [MASK]", verbalizers=STARS)
    assert made.verbalizers == '{"good": "great", "bad": "a terrible waste"}'
    assert made.words == STARS
    assert ExamplesConfig(**vars(made)) == made
    config = apply_overrides(
        config_of("a.jsonl", pattern="rte"),
        ['examples.verbalizers={"entailment": "so", "not_entailment": "not"}'],
    )
    assert config.examples.words == {"entailment": "so", "not_entailment": "not"}
