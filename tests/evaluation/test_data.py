import itertools

from glm_jax.evaluation.data import (
    blanks,
    clozes,
    held_out,
    last_words,
    training_chapters,
)


def test_documents_are_held_out_and_known_by_language():
    english, chinese = held_out("en"), held_out("zh")
    # The corpus has 637 and 924 documents, and one in a hundred is held out.
    assert english
    assert chinese
    assert len(english) + len(chinese) < 50
    both = held_out()
    assert both[:2] == [english[0], chinese[0]]
    assert len(both) == 2 * min(len(english), len(chinese))


def test_last_words_end_their_passages():
    text = " ".join(" ".join(held_out("en")).split())
    found = list(itertools.islice(last_words(), 100))
    assert len(found) > 20
    for one in found:
        assert f"{one.context} {one.word}" in text
        assert len(one.context.split()) >= 30
        assert one.word.isalpha()


def test_clozes_have_the_word_among_others():
    text = " ".join(" ".join(held_out("en")).split())
    found = list(itertools.islice(clozes(), 60))
    assert len(found) > 20
    for one in found:
        assert f"{one.before} {one.choices[one.answer]}{one.after}" in text
        assert len(set(one.choices)) == 4
        assert one.choices == sorted(one.choices)
    # The answer is as often in one place as in another: its rank in the alphabet tells nothing.
    assert {one.answer for one in found} == {0, 1, 2, 3}


def test_they_are_the_same_every_time():
    assert list(itertools.islice(clozes(), 5)) == list(itertools.islice(clozes(), 5))
    assert next(last_words()) == next(last_words())


def test_blanks_are_the_fifty_and_no_chapter_of_theirs_is_counted():
    assert len(blanks()) == 50
    chapters = training_chapters()
    assert len(chapters) + len(held_out("en")) == 637
    joined = "\n".join(chapters).replace("\n", " ")
    assert not any(f"{one.before} {one.answer}{one.after}" in joined for one in blanks())
