import pytest

from glm_jax.training.watch.goodput_log import History
from glm_jax.training.watch.goodput_plot import bars, plot_goodput
from tests.training.watch.written_log import RECORDS, SECOND


def test_bars_of_ten_seconds():
    width, shares = bars(History(RECORDS), 26)
    assert width == 10 * SECOND
    shown = [{n: round(v, 9) for n, v in share.items() if v} for share in shares]
    # Between two lines what happened when is not known: 85 s of start 1 are spread evenly.
    even = {"starting": 10, "compiling": 20, "steps": 50, "saving": 5}
    assert shown[0] == {name: round(value / 85, 9) for name, value in even.items()}
    assert shown[9] == {"lost": 1.0}
    assert shown[10] == {"lost": 0.5, "down": 0.5}
    assert shown[11] == {"down": 1.0}
    assert [sum(share.values()) for share in shares] == pytest.approx([1.0] * 26)


@pytest.mark.parametrize("name", ["goodput.png", "goodput.svg"])
def test_a_picture_is_drawn(tmp_path, name):
    rows = [{"step": 1, "loss": 4.5, "time/wall": 31.0}, {"step": 2, "eval/loss": 3.0}]
    plot_goodput(History(RECORDS), rows, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    content = (tmp_path / name).read_bytes()
    assert content.startswith(b"\x89PNG" if name.endswith("png") else b"<?xml")


def test_what_a_picture_shows(tmp_path):
    """An svg is text: its legend, and a line for each restart in both halves."""
    import matplotlib

    with matplotlib.rc_context({"svg.fonttype": "none"}):
        plot_goodput(History(RECORDS), [], tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    for label in ("steps 52.7%", "lost 7.7%", "down 9.6%", "minutes since the run began"):
        assert f">{label}<" in text
    assert "sampling" not in text
    assert text.count("stroke-dasharray: 2.96") == 4


def test_a_run_that_has_just_begun(tmp_path):
    plot_goodput(History(RECORDS[:1]), [], tmp_path / "a.png")
    empty = RECORDS[0].__class__(1, 0, 0, 0, 1, 64, {})
    plot_goodput(History([empty]), [], tmp_path / "b.png")
    assert len(list(tmp_path.iterdir())) == 2
