import random

import pytest

from glm_jax.serving.stops import StopText, longest_beginning


def passed(parts, stops):
    text = StopText(stops)
    return [text.push(part) for part in parts] + [text.finish()]


def test_text_that_may_begin_a_stop_string_waits():
    assert passed(["a E", "N", "Dx"], ["END"]) == ["a ", "", "", ""]
    assert passed(["a E", "N", "x"], ["END"]) == ["a ", "", "ENx", ""]
    assert passed(["a E"], ["END"]) == ["a ", "E"]
    assert passed(["aa", "ab"], ["aab"]) == ["", "a", ""]


def test_the_first_stop_string_that_is_whole_ends_the_text():
    # "bc" is whole before "abcd" is, though it begins later.
    assert passed(["xabcd"], ["abcd", "bc"]) == ["xa", ""]
    assert passed(["xabcd"], ["abcd", "cd"]) == ["x", ""]


def test_nothing_passes_behind_a_stop_string():
    text = StopText(["\n"])
    assert [text.push(part) for part in ("a", "b\nc", "d")] == ["a", "b", ""]
    assert (text.found, text.length) == (True, 2)


def test_where_none_is_looked_for_all_passes():
    text = StopText(["ab"])
    assert text.push("xa") == "x"
    assert text.skip("b") == "ab"
    assert not text.found
    assert text.length == 3


@pytest.mark.parametrize("seed", range(20))
def test_however_a_text_is_cut_the_answer_is_the_same(seed):
    draws = random.Random(seed)
    text = "".join(draws.choices("ab", k=60))
    stops = ["".join(draws.choices("ab", k=draws.randint(1, 6))) for _ in range(3)]
    cuts = sorted(draws.sample(range(61), 12))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, 60], strict=True)]
    ends = {stop: text.find(stop) + len(stop) for stop in stops if stop in text}
    first = min(ends.items(), key=lambda one: (one[1], one[1] - len(one[0])), default=None)
    expected = text if first is None else text[: first[1] - len(first[0])]
    assert "".join(passed(parts, stops)) == expected


def test_the_longest_end_that_begins_a_mark():
    assert longest_beginning("a <thi", ["<think>"]) == 4
    assert longest_beginning("<think>", ["<think>"]) == 0
    assert longest_beginning("ab", ["bx", "abx"]) == 2
    assert longest_beginning("ab", []) == 0
