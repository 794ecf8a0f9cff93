"""What a person types after a run: said at its end, ready to be copied."""

import os
import shlex
import sys
from pathlib import Path

from glm_jax.config import Config
from glm_jax.data.store_path import BUNDLED


def going_on(rewound: bool) -> str:
    """How a run that was stopped goes on."""
    if rewound:
        return "the same command without --resume_step and --skip_batches goes on"
    return "the same command goes on"


def filling(config: Config, workdir: Path) -> str:
    """The command that uses the model: fills a blank, or continues a text where it has none."""
    if config.objective.causal_rate == 1.0:
        prompt = "In the beginning"
    elif all(source in BUNDLED for source in _sources(config)):
        prompt = "In the beginning, God [MASK] the heavens and the earth."
    else:
        prompt = "A text of yours with a [MASK] in it."
    words = [_python(), "-m", "glm_jax.generate", "--checkpoint", str(workdir), prompt]
    return f"next: {shlex.join(words)}"


def _sources(config: Config) -> list[str]:
    return [part.source for part in config.data.components] or [config.data.source]


def longer(config: Config) -> str:
    """How a finished run is trained longer."""
    flag = " --extend" if config.optimizer.depends_on_num_steps else ""
    twice = 2 * config.train.num_steps
    return f"longer: the same command with --set train.num_steps={twice}{flag}"


def _python() -> str:
    """The interpreter that runs this, as short as it can be written from here."""
    inside = os.path.relpath(sys.executable)
    return sys.executable if inside.startswith("..") else inside
