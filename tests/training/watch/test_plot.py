import json

from glm_jax.training.watch.plot import plot_losses


def test_an_image_is_drawn(tmp_path):
    rows = [{"step": s, "loss": 3.0 / s, "loss/span": 2.0 / s} for s in (1, 2, 3)]
    rows.append({"step": 3, "eval/loss": 1.2, "eval/unigram_loss": 2.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    plot_losses(tmp_path / "metrics.jsonl", tmp_path / "loss.png")
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["loss.png", "metrics.jsonl"]
