"""Commands that a run prints at its end, ready to be copied."""

import os
import shlex
import sys
from pathlib import Path

from glm_jax.config import Config
from glm_jax.config.patterns import read_pattern
from glm_jax.data.store_path import BUNDLED
from glm_jax.tokenizers.tokenizer import load_tokenizer


def going_on(rewound: bool) -> str:
    """A sentence on how to resume a run that was stopped."""
    if rewound:
        return "the same command without --resume_step and --skip_batches goes on"
    return "the same command goes on"


def filling(config: Config, workdir: Path) -> str:
    """A command that uses the model: chats, fills a blank, or continues a text if it is causal.

    Of a reward model, which does none of these, a line of Python.
    """
    if config.model.value_head and not config.has_rollouts:
        return f"next: glm_jax.load({str(workdir)!r}).rewards([messages, ..])"
    if config.examples.format is not None:
        if load_tokenizer(config.data.tokenizer).chat_end_ids:
            words = [_python(), "-m", "glm_jax.chat", "--checkpoint", str(workdir)]
            return f"next: {shlex.join(words)}"
        prompt = _of_examples(config)
    elif config.objective.causal_rate == 1.0:
        prompt = "In the beginning"
    elif all(source in BUNDLED for source in _sources(config)):
        prompt = "In the beginning, God [MASK] the heavens and the earth."
    else:
        prompt = "A text of yours with a [MASK] in it."
    words = [_python(), "-m", "glm_jax.generate", "--checkpoint", str(workdir), prompt]
    return f"next: {shlex.join(words)}"


def _of_examples(config: Config) -> str:
    """What a model without a chat format is asked: a cloze of its pattern, or a question."""
    examples, fills_blanks = config.examples, config.model.fills_blanks
    if examples.format != "cloze":
        return "A question of yours." + " [gMASK]" * fills_blanks
    if examples.named is not None:
        return "A text of yours with a [MASK] in it." if fills_blanks else "A text of yours"
    pattern = read_pattern(str(examples.pattern))
    before, after = (
        "".join(part if isinstance(part, str) else "A text of yours." for part in side)
        for side in (pattern.before, pattern.after)
    )
    return f"{before}{pattern.blank}{after}" if fills_blanks else before.rstrip()


def _sources(config: Config) -> list[str]:
    return [part.source for part in config.data.components] or [config.data.source]


def longer(config: Config) -> str:
    """A sentence on how to train a finished run longer."""
    flag = " --extend" if config.optimizer.depends_on_num_steps else ""
    twice = 2 * config.train.num_steps
    return f"longer: the same command with --set train.num_steps={twice}{flag}"


def _python() -> str:
    """The path of this interpreter, relative if it is below the current directory."""
    inside = os.path.relpath(sys.executable)
    return sys.executable if inside.startswith("..") else inside
