import math

import numpy as np

from glm_jax.batch import SPAN
from glm_jax.evaluation.infilling_report.held_out_text import HeldOutText
from glm_jax.evaluation.infilling_report.orders import orders_of
from glm_jax.evaluation.infilling_report.pages import draw_losses, draw_orders, page
from glm_jax.evaluation.infilling_report.scored import Scored
from glm_jax.evaluation.infilling_report.tables import Line
from glm_jax.evaluation.statistics import Estimate

NAN = math.nan
COLUMNS = ("loss", "without ends", "of ends")
GROUPS = ("span length", "position in the document", "position in the window")


def tables():
    orders = Line("marginal", {"per text": Estimate(-10.5, 0.25, 2, 2.0)})
    line = Line("1", {name: Estimate(1.5, 0.125, 3, 7.0) for name in COLUMNS[:2]})
    line.estimates["of ends"] = Estimate(NAN, NAN, 0, 0.0)
    rank = Line("1", {"loss": Estimate(2.0, NAN, 1, 3.5), "gain": Estimate(0.0, NAN, 1, 3.0)})
    found = {name: [line] for name in GROUPS}
    objective = Line("span", {"loss": Estimate(1.5, 0.125, 3, 7.0)})
    return {"orders": [orders], "objective": [objective], "order in part B": [rank], **found}


def test_a_page_has_values_errors_and_counts():
    text = page({"seed": 4}, tables())
    assert "* seed: 4\n" in text
    assert "|  | per text | texts |\n| --- | --- | --- |\n" in text
    assert "| marginal | -10.5000 ± 0.2500 | 2 |\n" in text
    assert "| span length | loss | without ends | of ends | texts | targets |\n" in text
    assert "| 1 | 1.5000 ± 0.1250 | 1.5000 ± 0.1250 |  | 3 | 7 |\n" in text
    assert "| 1 | 2.0000 | 0.0000 | 1 | 4 |\n" in text
    assert "![orders](orders.png)" in text


def test_a_table_without_lines_is_left_out():
    text = page({}, {**tables(), "order in part B": []})
    assert "Loss by order in part B" not in text
    assert "Loss by span length" in text


def test_pictures_are_drawn_whatever_there_is(tmp_path):
    text = HeldOutText(0, SPAN, [0] * 11, [(1, 2), (9, 11)], True, 10, 20)
    one = Scored(text, orders_of(2, 2, 0, 0), np.arange(10.0).reshape(2, 5))
    same = Scored(text, orders_of(2, 2, 0, 0), np.ones((2, 5)))
    empty = {name: [] for name in tables()}
    for index, (scored, found) in enumerate([([one], tables()), ([same], tables()), ([], empty)]):
        draw_orders(scored, tmp_path / f"orders{index}.png")
        draw_losses(found, tmp_path / f"losses{index}.png")
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 6
    assert all(5_000 < size < 200_000 for size in sizes)
    assert (tmp_path / "orders0.png").read_bytes()[:4] == b"\x89PNG"
