from glm_jax.batch import DOCUMENT, SPAN
from glm_jax.evaluation.infilling_report.held_out_text import HeldOutText
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=3, gmask=4, smask=5, start=6, end=7, cls=8, eos=1, pad=0)
TOKENS = [8, 20, 21, 22, 23, 1]


def test_the_docstring():
    text = HeldOutText(0, SPAN, TOKENS, [(1, 3), (4, 5)], True, 0, 4)
    assert text.sizes.tolist() == [3, 2]
    first, second = (text.row(order, SPECIAL, 3) for order in ([0, 1], [1, 0]))
    assert first["tokens"].tolist() == [8, 3, 22, 3, 1, 6, 20, 21, 6, 23]
    assert first["targets"].tolist()[5:] == [20, 21, 7, 23, 7]
    assert second["tokens"].tolist() == [8, 3, 22, 3, 1, 6, 23, 6, 20, 21]
    assert second["positions"].tolist()[5:] == [3, 3, 1, 1, 1]
    assert set(first["objective"].tolist()[5:]) == {SPAN}


def test_a_stretch_has_no_end():
    text = HeldOutText(0, DOCUMENT, TOKENS, [(3, 6)], False, 0, 4)
    assert text.sizes.tolist() == [3]
    row = text.row([0], SPECIAL, 4)
    assert row["tokens"].tolist() == [8, 20, 21, 4, 6, 22, 23]
    assert row["targets"].tolist()[4:] == [22, 23, 1]
    assert set(row["objective"].tolist()[4:]) == {DOCUMENT}
