"""Training longer than a run was planned for: `train --extend --set train.num_steps=880`.

    run.json of 440 steps      train.num_steps 440    optimizer.extended None
    extended after step 440    train.num_steps 880    optimizer.extended ((440, 440),)

Most learning-rate schedules depend on the number of steps, so that a longer run would have had
other rates from its first step on. An extended run therefore records where it was extended. Steps
up to that checkpoint keep their rates; later steps move to the rates of the longer run
(`glm_jax.training.optimizer.optimizers`). With the record, an extended run that is killed and
resumed, with `--extend` or without, gives exactly the results of one that was not killed.

If rates do not depend on the number of steps (schedule "constant", or `optimizer.decay_steps` set),
nothing is recorded, and a run of N steps extended to M equals a run of M steps, bit for bit.
"""

import dataclasses

from glm_jax.config import Config
from glm_jax.errors import UserError


def extended(config: Config, old: Config | None, last: int) -> Config:
    """The config of a run that is extended after step `last` to `config.train.num_steps`.

    Args:
      config: as read from files and overrides.
      old: the recorded config of the run, `read_record(workdir)`.
      last: the step of the checkpoint to resume from; 0 if there is none.

    Raises:
      UserError: there is no run or no checkpoint, or the number of steps does not grow.
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
    """The config with the extensions that `old` records, unless it has extensions itself."""
    if old is None or config.optimizer.extended:
        return config
    optimizer = dataclasses.replace(config.optimizer, extended=old.optimizer.extended)
    return dataclasses.replace(config, optimizer=optimizer)


def extends(new: Config, old: Config) -> bool:
    """Whether `new` has the extensions of `old` and one more, after `old`'s number of steps."""
    *earlier, last = new.optimizer.extended or (None,)
    return (
        tuple(earlier) == (old.optimizer.extended or ())
        and last is not None
        and last[1] == old.train.num_steps < new.train.num_steps
    )
