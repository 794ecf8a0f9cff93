import pytest

import glm_jax
from glm_jax.config import ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.texts import (
    answer_record,
    complete_text,
    continue_text,
    fill_text,
    with_answers,
)

TOKENIZER = glm_jax.load_tokenizer("bundled")
SPECIAL = TOKENIZER.special


class Filler:
    """Stands for a model: every blank is filled with the same words."""

    tokenizer = TOKENIZER
    config = ModelConfig()

    def __init__(self, *words):
        self.words = words

    def fill_blanks(self, ids, **options):
        masks = [id_ for id_ in ids if id_ in SPECIAL.masks]
        return [TOKENIZER.encode(word) for word, _ in zip(self.words, masks, strict=True)]


class Continuer:
    """Stands for a causal model: every text goes on in the same way."""

    tokenizer = TOKENIZER
    config = ModelConfig(position_encoding="rotary")

    def __init__(self, ids):
        self.ids, self.asked = ids, None

    def generate(self, prompts, on_token, **options):
        self.asked = prompts, options
        for id_ in self.ids:
            on_token(0, id_)
        return [self.ids]


def written(complete, *arguments, **options):
    pieces = []
    complete(*arguments, pieces.append, **options)
    return pieces


def test_blanks_are_filled_in_order_and_marked():
    model = Filler("light", "very good")
    assert fill_text(model, "the [MASK] is [sMASK].\n") == "the [light] is [very good]."
    bold = fill_text(model, "the [MASK] is [sMASK].", bold=True)
    assert bold == "the \033[1mlight\033[0m is \033[1mvery good\033[0m."


@pytest.mark.parametrize(
    ("prompt", "words", "filled"),
    [
        ("The [MASK] dog.", ["▁quick"], "The quick dog."),
        ("The[MASK] dog.", ["▁quick"], "The quick dog."),
        ("It was good [MASK] ran.", [",▁and▁he"], "It was good, and he ran."),
        ("[MASK] dog", ["▁the"], "the dog"),
        ("a\n[MASK] dog", ["▁the"], "a\nthe dog"),
        ("宇宙[MASK]。", ["前"], "宇宙前。"),
        ("The [MASK] dog.", [""], "The  dog."),
        ("a [MASK] c [sMASK] e", ["▁the", "▁light"], "a the c light e"),
        ("the [MASK] [MASK]", ["▁light", "▁was"], "the light was"),
    ],
)
def test_an_answer_brings_the_space_in_front_of_it(prompt, words, filled):
    # Behind a special token ▁ stands where text has a space.
    answers = [TOKENIZER._behind.encode(word.replace("▁", " ")) for word in words]
    assert with_answers(TOKENIZER, prompt, answers) == filled


def test_word_pieces_have_no_spaces_so_the_prompt_decides():
    class Pieces:
        special, carries_spaces = SPECIAL, False

        def decode(self, ids, skip_special):
            return " ".join(str(id_) for id_ in ids if id_ != SPECIAL.mask)

    assert with_answers(Pieces(), "the [MASK] was[MASK].", [[1], [2, 3]]) == "the 1 was2 3."


def test_records():
    model = Filler("light", "very good")
    assert answer_record(model, "the [MASK] is [sMASK].\n") == {
        "prompt": "the [MASK] is [sMASK].\n",
        "text": "the light is very good.",
        "answers": ["light", "very good"],
    }
    whole, start = TOKENIZER.encode("the light was good"), TOKENIZER.encode("the light")
    assert answer_record(Continuer(whole[len(start) :]), "the light\n") == {
        "prompt": "the light\n",
        "text": "the light was good",
        "continuation": " was good",
    }


def test_a_text_is_continued_as_its_tokens_come():
    whole, start = TOKENIZER.encode("the light was very good"), TOKENIZER.encode("the light")
    model = Continuer(whole[len(start) :])
    assert whole[: len(start)] == start
    pieces = written(continue_text, model, "the light\n", top_k=3)
    assert "".join(pieces) == "the light was very good"
    assert pieces[0] == "the light"
    assert len([piece for piece in pieces if piece]) == 1 + len(model.ids)
    assert model.asked == ([[SPECIAL.gmask, SPECIAL.start, *start]], {"top_k": 3})
    bold = "".join(written(continue_text, model, "the light", bold=True))
    assert bold == "the light\033[1m was very good\033[0m"


def test_special_tokens_in_a_causal_prompt_are_letters():
    model = Continuer([])
    written(continue_text, model, "[MASK]")
    assert SPECIAL.mask not in model.asked[0][0]


def test_a_character_is_written_whole():
    # Not in the vocabulary, so it has a token for each of its four bytes.
    ids = TOKENIZER.encode("a\N{GRINNING FACE}")[-4:]
    pieces = written(continue_text, Continuer(ids), "b")
    assert [piece for piece in pieces if piece] == ["b", "\N{GRINNING FACE}"]


def test_bytes_that_end_a_text_and_are_no_character_are_replaced_once():
    ids = TOKENIZER.encode("a\N{GRINNING FACE}")[-4:-1]
    pieces = written(continue_text, Continuer(ids), "b")
    assert "".join(pieces) == TOKENIZER.decode([*TOKENIZER.encode("b"), *ids])
    assert pieces[0] == "b"


def test_a_long_text_is_not_decoded_again_with_each_token(monkeypatch):
    model = Continuer(TOKENIZER.encode("the light was good and " * 40))
    lengths, decode = [], type(TOKENIZER).decode

    def spied(self, ids, skip_special=False):
        lengths.append(len(ids))
        return decode(self, ids, skip_special)

    monkeypatch.setattr(type(TOKENIZER), "decode", spied)
    pieces = written(continue_text, model, "and he saw that " * 20)
    assert "".join(pieces[1:]).split() == ["the", "light", "was", "good", "and"] * 40
    assert len(lengths) > 200
    assert max(lengths) < 50


def test_the_model_decides_what_is_done():
    assert "".join(written(complete_text, Filler("light"), "the [MASK]")) == "the [light]\n"
    assert "".join(written(complete_text, Continuer([]), "the [MASK]")) == "the [MASK]\n"
    with pytest.raises(UserError, match=r"no blank in the prompt; write \[MASK\], \[gMASK\] or"):
        written(complete_text, Filler(), "the light")


@pytest.mark.parametrize("model", [Filler("light"), Continuer([])])
def test_a_model_without_a_tokenizer_says_so(model):
    model.tokenizer = None
    with pytest.raises(UserError, match="holds no tokenizer; text needs one"):
        written(complete_text, model, "the [MASK]")
