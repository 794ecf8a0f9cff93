"""`python -m glm_jax` lists the commands."""

import sys

from glm_jax import cli
from glm_jax.errors import UserError, did_you_mean

# Every command, in the order in which a user meets them.
COMMANDS = {
    "generate": "fills the blanks of a text, or continues it with a causal model",
    "chat": "talks with a chat model: ChatGLM, GLM-4",
    "serve": "serves a model over HTTP, with a page: OpenAI's API, blanks",
    "train": "trains a model on text, or resumes the run in a workdir",
    "report": "says where the time of a run went: goodput, restarts, speed, losses",
    "preview": "shows training rows as the model gets them",
    "evaluate": "measures a checkpoint: losses, clozes, perplexity, SeqIO tasks",
    "convert": "writes a model under other names, in another dtype or format",
    "cache": "tokenises a corpus into a token store, ahead of training",
    "plan": "predicts memory and time of a training step, without the devices",
}


def main() -> int:
    arguments = sys.argv[1:]
    if arguments and arguments[0] not in ("-h", "--help"):
        name = arguments[0]
        if name in COMMANDS:
            raise UserError(f"a command is a module: python -m glm_jax.{name}")
        raise UserError(f"no command {name!r}{did_you_mean(name, COMMANDS)}; {[*COMMANDS]}")
    width = max(map(len, COMMANDS))
    print("GLM in JAX. Commands, each with --help:\n")
    for name, does in COMMANDS.items():
        print(f"  python -m glm_jax.{name:<{width}}  {does}")
    return 0


if __name__ == "__main__":
    cli.run(main)
