"""`LanguageModel.fill` and `.complete`: text in, text out, as the command has it."""

import dataclasses

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.generate import main
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.framing import blanked_ids
from tests.generation.chat_stand_ins import model as chat_model

TOKENIZER = glm_jax.load_tokenizer("bundled")
SPECIAL = TOKENIZER.special


def model(**changes):
    config = ModelConfig(
        vocab_size=TOKENIZER.vocab_size,
        num_layers=1,
        embed_dim=16,
        num_heads=2,
        max_positions=128,
        initializer_range=0.5,
        **changes,
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return LanguageModel(config, create_params(config, mesh, seed=0), TOKENIZER)


@pytest.fixture(scope="module")
def lm():
    return model()


@pytest.fixture(scope="module")
def causal():
    return model(position_encoding="rotary")


@pytest.fixture(scope="module")
def saved(lm, causal, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    lm.save(folder / "glm", format="orbax")
    causal.save(folder / "causal", format="orbax")
    return folder


def printed(capsys, *arguments):
    assert main(list(map(str, arguments))) == 0
    return capsys.readouterr().out


def test_fill_is_what_the_command_prints_without_its_brackets(lm, saved, capsys):
    text, options = (
        "The [MASK] is [MASK] now.",
        {"max_new_tokens": 4, "temperature": 0.7, "seed": 2},
    )
    out = printed(
        capsys, "--checkpoint", saved / "glm", text,
        "--max_new_tokens", 4, "--temperature", 0.7, "--seed", 2,
    )  # fmt: skip
    filled = lm.fill(text, **options)
    assert filled == out.rstrip("\n").replace("[", "").replace("]", "")
    answers = lm.fill_blanks(blanked_ids(TOKENIZER, text), **options)
    for ids in answers:
        assert TOKENIZER.decode(ids, skip_special=True).strip() in filled


def test_complete_is_what_the_command_prints_behind_the_prompt(causal, saved, capsys):
    out = printed(capsys, "--checkpoint", saved / "causal", "the light ", "--max_new_tokens", 5)
    assert "the light" + causal.complete("the light ", max_new_tokens=5) + "\n" == out
    out = printed(
        capsys, "--checkpoint", saved / "causal", "the light",
        "--max_new_tokens", 5, "--num_beams", 2,
    )  # fmt: skip
    searched = causal.complete("the light", max_new_tokens=5, num_beams=2)
    assert out == f"the light{searched}\n"
    assert searched


def test_candidates_have_true_probabilities_best_first(lm):
    text = "The [MASK] is good."
    found = lm.fill(text, candidates=4, max_new_tokens=3)
    assert len(found) == 4
    assert len({one.text for one in found}) == 4
    probabilities = [one.probability for one in found]
    assert probabilities == sorted(probabilities, reverse=True)
    framed = blanked_ids(TOKENIZER, text)
    for one in found:
        (ids,) = one.ids
        ends = [[*ids]] if len(ids) == 3 else [[*ids, SPECIAL.end], [*ids, SPECIAL.eos]]
        expected = max(np.exp(lm.score(framed, ends)))
        assert one.probability == pytest.approx(expected, rel=1e-3)
        assert one.answers == (TOKENIZER.decode(ids, skip_special=True).strip(),)
        assert one.answers[0] in one.text


def test_one_candidate_is_the_text(lm):
    text = "The [MASK] is good."
    assert lm.fill(text, 1, max_new_tokens=3) == lm.fill(text, max_new_tokens=3)


BAD = [
    (lambda lm: lm.fill([1, 2]), r"fill takes text and got \[1, 2\]; ids are what lm.fill_blanks"),
    (lambda lm: lm.fill("no blank"), "no blank in the prompt"),
    (lambda lm: lm.fill("a [MASK]", candidates=0), "candidates must be a whole number"),
    (lambda lm: lm.fill("a [MASK]", candidates="2"), "candidates must be a whole number"),
    (lambda lm: lm.fill("a [MASK]", 2, temperature=0.5), "temperature must be 0.0; got 0.5"),
    (lambda lm: lm.fill("a [MASK]", 2, length_penalty=1.0), "length_penalty is not for them"),
    (lambda lm: lm.fill("a [MASK]", 5, num_beams=3), "5 candidates need num_beams=5 at least"),
    (lambda lm: lm.complete("the light"), r"this model fills blanks.*lm.fill\(text"),
    (
        lambda lm: lm.fill_blanks("The [MASK] dog."),
        r"fill_blanks takes ids and got text.*lm.fill\(",
    ),
    (lambda lm: lm.fill_blanks(["The [MASK] dog."]), "fill_blanks takes ids and got text"),
    (lambda lm: lm.fill_blanks(4), r"fill_blanks takes a list of ids and got one id: write \[4\]"),
    (lambda lm: lm.fill_blanks([4.0]), "whole numbers in a list; got 4.0"),
    (lambda lm: lm.generate("the light"), r"generate takes ids and got text.*lm.complete\(text\)"),
    (lambda lm: lm.generate(["the light"]), "generate takes ids and got text"),
    (lambda lm: lm.generate([1, 2, 3]), r"got ids alone: write \[\[1, 2, 3\]\]"),
    (lambda lm: lm.score("the [MASK]", [[5]]), "score takes ids and got text, .*tokenizer.encode"),
    (
        lambda lm: lm.score([5, SPECIAL.mask], "was"),
        "score's answers takes ids and got text, 'was'",
    ),
    (lambda lm: lm.score([5, SPECIAL.mask], ["was"]), "score's answers takes ids and got text"),
    (lambda lm: lm.predicts(["a"], [[5]]), "score takes ids and got text"),
    (lambda lm: lm.perplexity("the light"), "perplexity takes ids and got text, 'the light'"),
    (lambda lm: lm.token_log_probabilities("the light"), "takes ids and got text"),
    (lambda lm: lm.logits("the light"), "a Batch is needed, or a dict .* got str"),
    (lambda lm: lm.logits([1, 2]), "a Batch is needed, or a dict .* got list"),
    (lambda lm: lm.logits(np.array([[1, 2, 3]])), "a Batch is needed, or a dict .* got ndarray"),
    (lambda lm: lm.loss([[1, 2]]), "a Batch is needed"),
    (lambda lm: lm.tokenizer.decode(3), r"decode takes a list of ids and got one id: write \[3\]"),
    (lambda lm: lm.tokenizer.decode("the"), "decode takes ids and got text, 'the'"),
    (lambda lm: lm.tokenizer.decode([[1, 2]]), "got a list of lists"),
    (lambda lm: lm.tokenizer.encode([1, 2]), r"encode takes text and got \[1, 2\]; decode"),
    (lambda lm: lm.tokenizer.encode("a\udce9"), "is not a character"),
    (lambda lm: lm.tokenizer.encode_batch("the light"), "encode_batch takes a list of texts"),
]


@pytest.mark.parametrize(("ask", "message"), BAD, ids=[message for _, message in BAD])
def test_ids_and_text_in_each_others_place(lm, ask, message):
    with pytest.raises(UserError, match=message):
        ask(lm)


def test_a_causal_model_says_what_it_does(causal):
    with pytest.raises(
        UserError, match=r"continues texts and fills no blanks.*lm.complete\(text\)"
    ):
        causal.fill("the [MASK]")
    with pytest.raises(UserError, match=r"complete takes text and got \[1\]; ids are what lm.gen"):
        causal.complete([1])


@pytest.mark.parametrize("ask", ["fill_blanks", "score"])
def test_a_mask_in_plain_characters_is_noticed(lm, ask):
    ids = TOKENIZER.encode("the [sMASK] is good")
    arguments = ([[5]],) if ask == "score" else ()
    with pytest.raises(
        UserError, match=r"\[sMASK\] was encoded as plain characters; did you forget "
    ):
        getattr(lm, ask)(ids, *arguments)
    with pytest.raises(UserError, match="none of the mask ids"):
        getattr(lm, ask)(TOKENIZER.encode("the light is good"), *arguments)


def test_arrays_are_ids_too(lm):
    ids = blanked_ids(TOKENIZER, "the [MASK] is good")
    expected = lm.fill_blanks(ids, max_new_tokens=3)
    assert lm.fill_blanks(np.array(ids), max_new_tokens=3) == expected
    assert lm.fill_blanks(np.array([ids]), max_new_tokens=3) == [expected]


def test_without_a_tokenizer(lm):
    bare = LanguageModel(dataclasses.replace(lm.config), lm.params)
    for ask in (lambda: bare.fill("a [MASK]"), lambda: bare.fill("a [MASK]", 3)):
        with pytest.raises(UserError, match="holds no tokenizer; text needs one"):
            ask()


def test_what_ends_an_answer_in_a_chat():
    """The tokenizer's ids, and those of the checkpoint's files."""
    lm = chat_model()
    assert lm.chat_end_ids == sorted({*lm.tokenizer.chat_end_ids, *(lm._origin.eos_ids or ())})
    assert len(lm.chat_end_ids) > 0
    assert model(position_encoding="rotary").chat_end_ids == []
