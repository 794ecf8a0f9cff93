import numpy as np

from glm_jax.batch import ANSWER, Batch
from glm_jax.tokenizers.tokenizer import load_tokenizer
from glm_jax.training.watch.samples import BlankedText, Sampler, blanked_texts, choose_texts, render


def test_a_row_is_taken_apart_again():
    """Two texts in a row: [9 M 11] | S 12 13, and [8 M 10 M] | S 14 | S 15 16, spans shuffled."""
    fields = {
        "tokens": [9, 1, 11, 4, 12, 13, 8, 1, 10, 1, 4, 14, 4, 15, 16, 0],
        "targets": [9, 1, 11, 12, 13, 5, 8, 1, 10, 1, 14, 5, 15, 16, 5, 0],
        "positions": [0, 1, 2, 1, 1, 1, 0, 1, 2, 3, 3, 3, 1, 1, 1, 0],
        "block_positions": [0, 0, 0, 1, 2, 3, 0, 0, 0, 0, 1, 2, 1, 2, 3, 0],
        "attend_start": [0] * 6 + [6] * 9 + [0],
        "attend_end": [3, 3, 3, 4, 5, 6, 10, 10, 10, 10, 11, 12, 13, 14, 15, 0],
        "loss_weights": [0.0] * 16,
    }
    batch = Batch.from_dict({name: np.array([value]) for name, value in fields.items()})
    assert blanked_texts(batch, 0, end_id=5) == [
        BlankedText([9, 1, 11], [1], [[12, 13]]),
        BlankedText([8, 1, 10, 1], [1, 3], [[15, 16], [14]]),
    ]


def test_a_causal_text_is_cut_in_the_middle(tokenizer):
    """A text of 7 and one of 60 tokens: at most 24 are the beginning, at most 32 the rest."""
    length = 67
    fields = {name: np.zeros((1, length), np.int32) for name in Batch.__dataclass_fields__}
    fields["tokens"][0] = [2, 4, *range(10, 15), 2, 4, *[20] * 58]
    fields["attend_start"][0] = [0] * 7 + [7] * 60
    fields["attend_end"][0] = np.arange(1, length + 1)
    short, long = blanked_texts(Batch(**fields), 0, end_id=5)
    assert short == BlankedText([2, 4, 10, 11], [4], [[12, 13, 14]])
    assert long == BlankedText([2, 4, *[20] * 22], [24], [[20] * 32])
    assert short.continues
    assert not BlankedText([9, 1, 11], [1], [[12]]).continues
    lines = render([short], [[[12, 15]]], tokenizer)
    assert lines == "  <2><4>kl →←\n    original: mno\n    filled:   mp\n"


def test_a_question_and_its_first_answer():
    """A causal example: 10 11 | 12 13 are learnt, 14 is not, 15 is."""
    fields = {name: np.zeros((1, 8), np.int32) for name in Batch.__dataclass_fields__}
    fields["tokens"][0] = [10, 11, 12, 13, 14, 15, 0, 0]
    fields["targets"][0] = [0, 12, 13, 0, 15, 7, 0, 0]
    fields["loss_weights"] = np.array([[0, 1, 1, 0, 1, 1, 0, 0]], np.float32)
    fields["objective"][0] = np.where(fields["loss_weights"][0] > 0, ANSWER, 0)
    fields["attend_end"][0, :6] = range(1, 7)
    (text,) = blanked_texts(Batch(**fields), 0, end_id=5)
    assert text == BlankedText([10, 11], [2], [[12, 13]])
    assert text.continues


def test_texts_of_every_objective_in_turn(batch):
    chosen = choose_texts(batch, end_id=5, continues=False, count=3)
    # The tiny rows alternate between document and span.
    rows = [blanked_texts(batch, row, 5)[0] for row in (1, 0, 3)]
    assert chosen == rows
    assert all(len(text.originals[0]) == 4 for text in chosen)


def test_a_model_that_fills_blanks_goes_on_from_no_beginning():
    """A causal row [6 7 8 9], and one with a blank [6 M] | S 7."""
    fields = {
        "tokens": [[6, 7, 8, 9], [6, 1, 4, 7]],
        "targets": [[7, 8, 9, 0], [6, 1, 7, 5]],
        "positions": [[0, 1, 2, 3], [0, 1, 1, 1]],
        "block_positions": [[0, 0, 0, 0], [0, 0, 1, 2]],
        "attend_start": [[0] * 4] * 2,
        "attend_end": [[1, 2, 3, 4], [2, 2, 3, 4]],
        "loss_weights": [[1.0] * 4] * 2,
        "objective": [[4] * 4, [1] * 4],
    }
    batch = Batch.from_dict({name: np.array(value) for name, value in fields.items()})
    blank, beginning = BlankedText([6, 1], [1], [[7]]), BlankedText([6, 7], [2], [[8, 9]])
    assert choose_texts(batch, end_id=5, continues=False) == [blank]
    assert choose_texts(batch, end_id=5, continues=True) == [blank, beginning]


def test_rendered_lines(tokenizer):
    text = BlankedText([6, 8, 1, 9], [2], [[10, 11]])
    assert render([text], [[[12]]], tokenizer) == (
        "  <6>i →<1>← j\n    original: kl\n    filled:   m\n"
    )


def test_only_the_surroundings_of_a_blank_are_shown(tokenizer):
    text = BlankedText([8] * 40 + [1] + [9] * 40, [40], [[]])
    first = render([text], [[[]]], tokenizer).splitlines()[0]
    assert first == f"  … {'i' * 12} →<1>← {'j' * 12} …"


def test_sections_after_the_restored_step_are_removed(tmp_path, config, tokenizer):
    path = tmp_path / "samples.txt"
    path.write_text("step 2\n  a\n    original: step 9\nstep 4\n  b\nstep 6\n  c\n")
    Sampler(config, tokenizer, [], path).rewind(4)
    assert path.read_text() == "step 2\n  a\n    original: step 9\nstep 4\n  b\n"
    Sampler(config, tokenizer, [], path).rewind(0)
    assert path.read_text() == ""


def test_white_space_alone_is_shown():
    tokenizer = load_tokenizer("bundled")
    space, line = tokenizer.encode("a \n")[-2:]
    text = BlankedText([tokenizer.special.mask], [0], [[space]])
    shown = render([text], [[[line]]], tokenizer)
    assert "original: ␣\n" in shown
    assert "filled:   \\n\n" in shown
    assert "filled:   \n" in render([text], [[[]]], tokenizer)


def test_a_section_is_added_and_shown(tmp_path, config, tokenizer, monkeypatch, capsys):
    path = tmp_path / "samples.txt"
    sampler = Sampler(config, tokenizer, [], path)
    monkeypatch.setattr(Sampler, "section", lambda self, step, params: f"step {step}\n  {params}\n")
    assert sampler.lacks(2)
    for step, params in ((2, "a"), (4, "b")):
        sampler.add(step, params)
    assert path.read_text() == "step 2\n  a\nstep 4\n  b\n"
    assert capsys.readouterr().out == "step 2\n  a\n\nstep 4\n  b\n\n"
    assert not sampler.lacks(2)
