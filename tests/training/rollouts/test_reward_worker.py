"""The process that calls a reward function: its protocol, line by line."""

import json
import subprocess
import sys
from pathlib import Path

from glm_jax.training.rollouts import reward_worker
from tests.rollout_runs import write_files


def lines(file, name, *asked):
    """What the worker writes for objects that it reads."""
    given = "".join(json.dumps(one) + "\n" for one in asked)
    done = subprocess.run(
        [sys.executable, reward_worker.__file__, str(file), name],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_line_for_each_answer(tmp_path):
    file = write_files(tmp_path).with_name("rewards.py")
    asked = {"prompt": "Say 3", "answer": "it is 3", "example": {"answer": "3", "number": 3}}
    other = {**asked, "answer": "no"}
    assert lines(file, "named", asked, other) == [{"ready": True}, {"reward": 1.0}, {"reward": 0.0}]
    found = lines(file, "raises", asked)
    assert found[1:] == [{"error": "ValueError: no it is 3"}]
    assert lines(file, "gone", asked) == [{"error": "there is no function gone in it"}]


def test_a_file_may_import_its_neighbours(tmp_path):
    (tmp_path / "beside.py").write_text("WORTH = 7\n")
    file = tmp_path / "rewards.py"
    file.write_text(
        "from beside import WORTH\n\n\ndef f(prompt, answer, example):\n    return WORTH\n"
    )
    asked = {"prompt": "a", "answer": "b", "example": {}}
    assert lines(file, "f", asked)[1] == {"reward": 7.0}


def test_it_imports_nothing_of_the_package():
    text = Path(reward_worker.__file__).read_text(encoding="utf-8")
    assert "glm_jax" not in text.split('"""', 2)[2]
