import json

from glm_jax.evaluation.metrics_with_files import MetricsWithFiles
from glm_jax.evaluation.telling import tell

METRICS = {"loss": 2.25, "accuracy": 1 / 3}


def test_metrics_are_printed_one_per_line(tmp_path, capsys):
    tell("mine", METRICS, "nats per token", tmp_path, None)
    said = capsys.readouterr()
    assert said.out == f"{'loss':<24} 2.25\n{'accuracy':<24} 0.333333\n"
    assert said.err == "mine: nats per token\n"
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_json_or_a_table_and_a_report_a_directory(tmp_path):
    for name in ("a.json", "a.md"):
        tell("mine", METRICS, "nats", tmp_path / "run", tmp_path / name)
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "checkpoint": str(tmp_path / "run"),
        "task": "mine",
        "metrics": METRICS,
    }
    table = (tmp_path / "a.md").read_text()
    assert "0.333333" in table
    assert "Nats." in table
    tell("mine", MetricsWithFiles(METRICS, {"b.md": "b"}, {}), "", tmp_path, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.md"]
