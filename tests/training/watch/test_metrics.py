import json

import pytest

from glm_jax.training.watch.metrics import MetricsLog, data_shares, read_metrics


def rows_of(path):
    """Every line must be JSON that any reader takes: no NaN, no Infinity."""

    def refuse(constant):
        raise AssertionError(constant)

    return [json.loads(line, parse_constant=refuse) for line in path.read_text().splitlines()]


def test_values_that_are_not_finite_are_left_out(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl", 0)
    log.write(3, {"loss": 1.5, "loss/span": float("nan"), "eval/loss": float("inf")})
    assert rows_of(tmp_path / "m.jsonl") == [{"step": 3, "loss": 1.5}]


def test_a_resumed_log_loses_later_rows_and_a_torn_line(tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text(
        '{"step": 1, "loss": 3.0}\n{"step": 2, "loss": 2.0}\n{"step": 2, "eval/loss": 2.5}\n'
        '{"step": 3, "loss": 1.0}\n{"step": 4, "lo'
    )
    log = MetricsLog(path, last_step=2)
    log.write(3, {"loss": 1.25})
    log.close()
    assert rows_of(path) == [
        {"step": 1, "loss": 3.0},
        {"step": 2, "loss": 2.0},
        {"step": 2, "eval/loss": 2.5},
        {"step": 3, "loss": 1.25},
    ]


def test_a_log_that_needs_no_cut_is_not_rewritten(tmp_path):
    path = tmp_path / "m.jsonl"
    text = '{"step": 1, "loss": 0.1234567890123}\n'
    path.write_text(text)
    before = path.stat().st_ino
    MetricsLog(path, last_step=1).close()
    assert path.read_text() == text
    assert path.stat().st_ino == before


def test_other_hosts_write_nothing(tmp_path):
    log = MetricsLog(tmp_path / "m.jsonl", 0, writes=False)
    log.write(1, {"loss": 1.0})
    log.close()
    assert not (tmp_path / "m.jsonl").exists()


def test_lines_that_are_not_whole_are_skipped(tmp_path):
    (tmp_path / "m").write_text('{"step": 1}\n[]\n{"st')
    assert read_metrics(tmp_path / "m") == [{"step": 1}]


def test_data_shares_of_the_docstring():
    counted = {"rows": 4, "places_used": 250, "rows_fewer_spans": 1, "targets/span": 31}
    assert data_shares(counted | {"targets/sentence": 0}, 64) == {
        "data/places_used": pytest.approx(0.9765625),
        "data/padding": pytest.approx(0.0234375),
        "data/rows_fewer_spans": 0.25,
        "data/targets/span": 31.0,
    }


def test_lines_that_are_no_rows_are_kept_elsewhere(tmp_path, caplog):
    path = tmp_path / "m.jsonl"
    damaged = (
        b'{"step": 1, "loss": 3.0}\n\xff\xfe\n{"step": "a"}\n{"step": 2, "loss": "x"}\n'
        b'{"step": 2, "loss": NaN}\n{"step": 2, "loss": 1e999}\n{"step": true}\n\n'
        b'{"step": 2, "loss": 2.0}\n{"st'
    )
    path.write_bytes(damaged)
    MetricsLog(path, last_step=2).close()
    assert rows_of(path) == [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}]
    assert (tmp_path / "damaged-1-m.jsonl").read_bytes() == damaged
    assert "6 lines of" in caplog.text
    path.write_bytes(damaged)
    MetricsLog(path, last_step=1).close()
    assert (tmp_path / "damaged-2-m.jsonl").exists()


def test_a_torn_line_alone_is_not_worth_a_word(tmp_path, caplog):
    (tmp_path / "m.jsonl").write_text('{"step": 1, "loss": 3.0}\n{"st')
    MetricsLog(tmp_path / "m.jsonl", last_step=1).close()
    assert caplog.text == ""
    assert [path.name for path in tmp_path.iterdir()] == ["m.jsonl"]
