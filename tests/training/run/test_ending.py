import errno

import pytest

from glm_jax.checkpoints.disk import DiskTrouble
from glm_jax.training.run.ending import failed
from glm_jax.training.watch.recording import TrainingDiverged

FULL = OSError(errno.ENOSPC, "No space left on device", "samples.txt")


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (TrainingDiverged("loss nan at step 3"), 1, "loss nan at step 3"),
        (DiskTrouble("checkpoint 4 could not be written: full"), 3, "checkpoint 4 could not be wr"),
        (FULL, 3, "'samples.txt' cannot be used: No space left on device"),
    ],
)
def test_a_status_and_a_sentence(tmp_path, capsys, error, status, said):
    assert failed(error, tmp_path) == status
    message = capsys.readouterr().err
    assert message.startswith(f"error: {said}")
    assert message.endswith("; none is saved\n")


def test_a_save_that_has_started_is_waited_for(tmp_path, capsys):
    def finish():
        (tmp_path / "checkpoints" / "4").mkdir(parents=True)
        raise DiskTrouble("the next one cannot be written")

    assert failed(FULL, tmp_path, finish) == 3
    assert capsys.readouterr().err.endswith("; the newest checkpoint is that of step 4\n")


def test_a_bug_is_raised(tmp_path, capsys):
    error = OSError(errno.ENOENT, "No such file or directory", "x")
    with pytest.raises(FileNotFoundError):
        failed(error, tmp_path)
    assert capsys.readouterr().err == ""
