"""Training longer than a run was planned for: `train --extend --set train.num_steps=880`.

    run.json of 440 steps      train.num_steps 440    optimizer.extended None
    extended after step 440    train.num_steps 880    optimizer.extended ((440, 440),)

Where the learning rate of a step depends on how many there are, a longer run would have had others
from its first step on. The past cannot be changed, so it is recorded: steps up to the checkpoint
keep the rates they had, those after it go over to the rates of the longer run
(`glm_jax.training.optimizer.optimizers`). The record makes it exact: an extended run that is killed
and goes on, with `--extend` or without, gives what one that was not gives. Where the rate does not
depend on it (schedule "constant", or `optimizer.decay_steps` given) nothing is recorded, and N
steps extended to M are M steps, bit for bit.
"""

import dataclasses

from glm_jax.config import Config
from glm_jax.errors import UserError


def extended(config: Config, old: Config | None, last: int) -> Config:
    """The config of a run that goes on to `config.train.num_steps` after step `last`.

    Args:
      config: as read from files and overrides.
      old: the record of the run, `read_record(workdir)`.
      last: the step whose checkpoint it goes on from, 0 where there is none.

    Raises:
      UserError: there is no run, no checkpoint, or not more steps than it has already.
    """
    if old is None or not last:
        raise UserError("--extend goes on from a checkpoint, and the workdir holds none")
    steps, before = config.train.num_steps, old.train.num_steps
    recorded = old.optimizer.extended
    may_be_equal = recorded or not config.optimizer.depends_on_num_steps
    if steps < before or (steps == before and not may_be_equal):
        raise UserError(
            f"--extend takes train.num_steps above the {before} that the run has; got {steps}"
        )
    if steps > before and config.optimizer.depends_on_num_steps:
        recorded = (*(recorded or ()), (last, before))
    optimizer = dataclasses.replace(config.optimizer, extended=recorded)
    return dataclasses.replace(config, optimizer=optimizer)


def adopted(config: Config, old: Config | None) -> Config:
    """The config with the extensions of the run that it goes on with, where it names none."""
    if old is None or config.optimizer.extended:
        return config
    optimizer = dataclasses.replace(config.optimizer, extended=old.optimizer.extended)
    return dataclasses.replace(config, optimizer=optimizer)


def extends(new: Config, old: Config) -> bool:
    """Whether `new` is `old` with one extension more, and otherwise the same."""
    *earlier, last = new.optimizer.extended or (None,)
    return (
        tuple(earlier) == (old.optimizer.extended or ())
        and last is not None
        and last[1] == old.train.num_steps < new.train.num_steps
    )
