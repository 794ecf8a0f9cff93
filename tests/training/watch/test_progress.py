import numpy as np

from glm_jax.batch import OBJECTIVES
from glm_jax.training.watch.progress import Progress, evaluation_line, say

VALUES = {"loss": 8.5712, "learning_rate": 2.5e-4, "tokens_per_second": 1480.4}


def test_a_line_for_each_row_without_a_terminal(capsys):
    with Progress(9, 440, terminal=False) as progress:
        progress.step()
        progress.logged(10, VALUES, 750.0)
        progress.logged(440, VALUES, 0.0)
    out, errors = capsys.readouterr()
    assert out.splitlines() == [
        "step 10/440  loss 8.571  learning rate 2.50e-04  1,480 tokens/s  12:30 left",
        "step 440/440  loss 8.571  learning rate 2.50e-04  1,480 tokens/s",
    ]
    assert errors == ""


def test_a_bar_on_a_terminal(capsys):
    with Progress(9, 440, terminal=True) as progress:
        progress.step()
        progress.logged(10, VALUES, 750.0)
        say("compiling ...")
    out, errors = capsys.readouterr()
    assert out == "compiling ...\n"
    assert "10/440, loss 8.571" in errors
    assert "step/s" not in errors
    assert "s/step" not in errors  # tqdm's own rate has evaluations in it


def test_line_to_read():
    values = {f"eval/{kind}/{o}": np.nan for kind in ("loss", "unigram_loss") for o in OBJECTIVES}
    values |= {"eval/loss": 5.1, "eval/unigram_loss": 6.3}
    values |= {"eval/loss/span": 5.0, "eval/unigram_loss/span": 6.25}
    expected = "step 200: held out 5.100 (unigram 6.300), span 5.000 (unigram 6.250)"
    assert evaluation_line(200, values) == expected


def test_a_loss_without_a_baseline_has_a_line_too():
    values = {"eval/loss": 0.2886, "eval/accuracy": 0.875}
    assert evaluation_line(4, values) == "step 4: held out 0.289, accuracy 0.875"
