"""Pictures against what they must look like, character by character."""

import dataclasses

import numpy as np

from glm_jax.batch import CAUSAL, SPAN, Batch, prefix_bounds
from glm_jax.corruption import assemble, assemble_prefix
from glm_jax.data import picture
from glm_jax.data.picture import (
    draw_mask,
    objective_of,
    row_of,
    segments,
    show,
    slots_used,
    spell,
)
from glm_jax.special_tokens import SPELLINGS
from glm_jax.tokenizers.tokenizer import load_tokenizer

WORDS = [
    "pad",
    "[CLS]",
    "[MASK]",
    "<s>",
    "</s>",
    "eos",
    "the",
    "light",
    "was",
    "good",
    "光線很好的一天",
]
IDS = {word: i for i, word in enumerate(WORDS)}


def text(words):
    return [IDS[word] for word in words.split()]


def padded(fields, length):
    extra = length - len(fields["tokens"])
    return Batch(**{name: np.append(v, np.zeros(extra, v.dtype)) for name, v in fields.items()})


def example(length=12):
    fields = assemble(
        text("[CLS] the light was good eos"),
        [(2, 3), (4, 5)],
        [1, 0],
        mask_id=IDS["[MASK]"],
        start_id=IDS["<s>"],
        end_id=IDS["</s>"],
    )
    return padded(fields, length)


def decode(ids):
    return " ".join(WORDS[i] for i in ids)


def lines(text_):
    return [line.strip() for line in text_.strip().split("\n")]


def test_mask():
    assert lines(draw_mask(*prefix_bounds(2, 4))) == ["x x . .", "x x . .", "x x x .", "x x x x"]


def test_mask_of_two_texts_and_padding():
    assert lines(draw_mask([0, 0, 2, 2, 0], [1, 2, 4, 4, 0])) == [
        "x . . . .",
        "x x . . .",
        ". . x x .",
        ". . x x .",
        ". . . . .",
    ]


def test_a_large_mask_is_drawn_in_squares():
    assert lines(draw_mask(*prefix_bounds(4, 10), width=5)) == [
        "x x . . .",
        "x x . . .",
        "x x + . .",
        "x x x + .",
        "x x x x +",
    ]
    # 7 slots in squares of 2: the last one is a square of 1.
    assert lines(draw_mask(*prefix_bounds(7, 7), width=4)) == ["x x x x"] * 4


def test_table():
    expected = """
    token      target       pos block
    [CLS]      ·              0     0   x x x x x x . . . .
    the        ·              1     0   x x x x x x . . . .
    [MASK]     ·              2     0   x x x x x x . . . .
    was        ·              3     0   x x x x x x . . . .
    [MASK]     ·              4     0   x x x x x x . . . .
    eos        ·              5     0   x x x x x x . . . .
    <s>        good           4     1   x x x x x x x . . .
    good       </s>           4     2   x x x x x x x x . .
    <s>        light          2     1   x x x x x x x x x .
    light      </s>           2     2   x x x x x x x x x x
    """
    assert lines(show(example(), WORDS.__getitem__)) == lines(expected)


def test_table_with_the_interval_in_numbers_and_wide_characters():
    row = example()
    row.tokens[1] = IDS["光線很好的一天"]
    table = show(row, WORDS.__getitem__, mask=False).split("\n")
    assert table[0] == "token      target       pos block   sees"
    # Chinese characters take two columns each: four of them and two dots are ten.
    assert table[2] == "光線很好.. ·              1     0   0:6"
    assert table[8] == "good       </s>           4     2   0:8"


def test_a_long_row_lists_its_beginning_and_part_b():
    fields = assemble_prefix([IDS["[CLS]"], *[6] * 40], 10, mask_id=2, start_id=3)
    table = show(padded(fields, 64), WORDS.__getitem__, mask=False, slots=16).split("\n")
    assert len(table) == 1 + 8 + 1 + 8 + 1
    assert table[9] == "... 23 more slots"
    assert table[10].split() == ["[MASK]", "·", "31", "0", "0:32"]
    assert table[11].split() == ["<s>", "the", "31", "1", "0:33"]
    assert table[-1] == "... 3 more slots"


def test_spelled():
    assert lines(spell(example(), decode)) == [
        "segment 1: 6 slots of part A, 4 of part B",
        "part A  [CLS] the [MASK] was [MASK] eos",
        "part B  position 4: good </s>",
        "position 2: light </s>",
    ]


def test_two_texts():
    first, second = example(10), example(10)
    both = {}
    for name, value in first.to_dict().items():
        shift = 10 if name in ("attend_start", "attend_end") else 0
        both[name] = np.concatenate([value, getattr(second, name) + shift, np.zeros(4, np.int32)])
    row = Batch(**both)
    assert slots_used(row) == 20
    one, two = segments(row)
    assert (one.start, one.part_b, one.end, one.spans) == (0, 6, 10, [(6, 8), (8, 10)])
    assert (two.start, two.part_b, two.end, two.spans) == (10, 16, 20, [(16, 18), (18, 20)])
    assert lines(spell(row, decode))[4] == "segment 2: 6 slots of part A, 4 of part B"


def test_empty_row():
    zeros = np.zeros(4, np.int32)
    row = Batch(*[zeros] * 8)
    assert slots_used(row) == 0
    assert segments(row) == []
    assert objective_of(row) == "none"


def test_row_and_objective():
    batch = Batch(**{name: np.stack([v, v]) for name, v in example().to_dict().items()})
    row = row_of(batch, 1)
    assert row.tokens.shape == (12,)
    assert objective_of(row) == "span"
    row = dataclasses.replace(row, objective=np.where(row.objective == SPAN, 3, 0))
    assert objective_of(row) == "document"


def test_docstring_example():
    words = ["[CLS]", "the", "[MASK]", "light", "was", "good", SPELLINGS["start"], SPELLINGS["end"]]
    fields = assemble([0, 1, 4, 5, 3], [(2, 4)], [0], mask_id=2, start_id=6, end_id=7)
    assert lines(show(padded(fields, 8), words.__getitem__)) == lines(picture.__doc__)[2:]


def test_a_causal_row_has_no_part_b():
    """Four slots, each seeing those up to itself."""
    start, end = prefix_bounds(0, 4)
    none = np.zeros(4, np.int32)
    row = Batch(
        tokens=np.array(text("[MASK] <s> the light")),
        targets=np.array(text("<s> the light eos")),
        loss_weights=np.array([0.0, 1.0, 1.0, 1.0]),
        positions=np.arange(4),
        block_positions=none,
        attend_start=start,
        attend_end=end,
        objective=np.array([0, CAUSAL, CAUSAL, CAUSAL]),
    )
    assert objective_of(row) == "causal"
    assert segments(row) == [picture.Segment(start=0, part_b=4, end=4, spans=[])]
    lines = spell(row, lambda ids: " ".join(WORDS[id_] for id_ in ids))
    assert lines == "segment 1: 4 slots, nothing cut out\n  [MASK] <s> the light"


def test_spaces_and_the_bytes_of_one_character_are_shown():
    pieces = {1: " the", 2: " ", 3: "\ufffd", 4: "\ufffd", 5: "\ufffd", 6: "good  "}

    def join(ids):
        return "很" if ids == [3, 4, 5] else "\ufffd" * len(ids)

    shown = picture.names([1, 2, 3, 4, 5, None, 3, 4, 6], pieces.__getitem__, join)
    assert shown == ["␣the", "␣", "很 1/3", "很 2/3", "很 3/3", "·", "\ufffd", "\ufffd", "good␣␣"]
    assert picture.names([3, 4, 5], pieces.__getitem__) == ["\ufffd"] * 3


def test_the_bytes_of_a_real_tokenizer():
    tokenizer = load_tokenizer("bundled")
    ids = tokenizer.encode("a\N{GRINNING FACE}")[-4:]
    shown = picture.names(ids, lambda id_: tokenizer.decode([id_]), tokenizer.decode)
    assert shown == [f"\N{GRINNING FACE} {i}/4" for i in (1, 2, 3, 4)]
