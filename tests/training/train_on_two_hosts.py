"""Run by test_loop.py, one process per host: python FILE WORKDIR PORT RANK [full].

Two hosts of two devices each train a model that is split over all four, to the end; "full": to the
first host's disk, which is full when samples are written.
"""

import errno
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import tiny_run

from glm_jax.errors import UserError
from glm_jax.training.loop import train
from glm_jax.training.watch.samples import Sampler


def main():
    workdir, port, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"127.0.0.1:{port}", 2, rank)
    config = tiny_run.change_fields(
        tiny_run.tiny_config(),
        train={"num_steps": 2, "checkpoint_every": 0, "eval_every": 0},
        mesh={"data": 1, "fsdp": 4},
    )

    if sys.argv[4:] == ["full"] and rank == 0:

        def write(self, section):
            raise OSError(errno.ENOSPC, "No space left on device", "samples.txt")

        Sampler.write = write

    def batches(split, shard_index, num_shards):
        # Within the first start: a second one is refused on both hosts alike.
        if split == "train" and num_shards == 2:
            try:
                train(config, workdir, batches, tiny_run.LetterTokenizer())
            except UserError as error:
                print(error, flush=True)
        return tiny_run.Stream(0 if split == "train" else 10_000, shard_index, num_shards)

    sys.exit(train(config, workdir, batches, tiny_run.LetterTokenizer()))


if __name__ == "__main__":
    main()
