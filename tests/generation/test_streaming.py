from glm_jax.generation.streaming import TextStream


def passed_on(pieces, decode=None):
    """What is written after each of some byte strings, and at the end."""
    parts = []
    stream = TextStream(
        decode or (lambda ids: b"".join(pieces[i] for i in ids).decode(errors="replace")),
        parts.append,
    )
    after = []
    for index in range(len(pieces)):
        stream.push(index)
        after.append("|".join(parts))
        parts.clear()
    stream.finish()
    return after, "".join(parts)


def test_a_character_of_several_tokens_is_passed_on_whole():
    moon = "月".encode()
    assert passed_on([b"a", moon[:1], moon[1:2], moon[2:], b"b"]) == (["a", "", "", "月", "b"], "")
    assert passed_on(["😀".encode()[:3], "😀".encode()[3:] + b"!"]) == (["", "😀!"], "")


def test_bytes_that_become_no_character_come_at_the_end():
    assert passed_on([b"a", b"\xe6", b"\x9c"]) == (["a", "", ""], "\N{REPLACEMENT CHARACTER}")
    # Or before what follows them.
    assert passed_on([b"a\xff", b"b"]) == (["", "a\N{REPLACEMENT CHARACTER}b"], "")


def test_white_space_in_front_is_left_out():
    assert passed_on([b"\n", b" ", b"a", b" ", b"b"]) == (["", "", "a", " ", "b"], "")


def test_a_text_that_changes_waits():
    """Some vocabularies clean up: what was passed on is never taken back."""
    texts = ["", "ab", "ac", "abd"]
    assert passed_on([b"."] * 3, lambda ids: texts[len(ids)]) == (["ab", "", "d"], "")
