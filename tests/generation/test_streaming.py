from glm_jax.generation.streaming import GrowingText, TextStream


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


def grown(decode, ids, before=()):
    """What is passed on with each id, and at the end."""
    text = GrowingText(decode, before)
    return [text.push(id_) for id_ in ids] + [text.finish()]


def test_a_long_text_is_decoded_from_its_last_ids():
    sizes = []
    text = "疑是地上霜, and so on. " * 40

    def decode(ids):
        sizes.append(len(ids))
        return bytes(ids).decode(errors="replace")

    assert "".join(grown(decode, text.encode())) == text
    assert max(sizes) <= 36  # a border between characters is waited for


def test_text_is_joined_to_what_stands_in_front_of_it():
    def decode(ids):  # as sentencepiece does: no space in front of all
        return "".join(["▁a", "▁b", "c"][id_] for id_ in ids).replace("▁", " ").removeprefix(" ")

    assert grown(decode, [1, 2]) == ["b", "c", ""]
    assert grown(decode, [1, 2], before=[0]) == [" b", "c", ""]
    assert grown(decode, [1, 2] * 100, before=[0] * 40) == [*[" b", "c"] * 100, ""]


def test_half_a_character_in_front_is_no_part_of_the_text():
    moon = "月".encode()

    def decode(ids):
        return bytes(ids).decode(errors="replace")

    assert grown(decode, b"ab", before=moon[:2]) == ["a", "b", ""]


def test_bytes_without_end_are_passed_on_but_for_the_last():
    broken = "\N{REPLACEMENT CHARACTER}"
    parts = grown(lambda ids: broken * len(ids), range(100))
    assert "".join(parts[:-1]) == broken * 96
    assert parts[-1] == broken * 4
