"""SeqIO tasks: `import glm_jax.tasks` registers "glm_pretrain" on the bundled corpus.

    import glm_jax.tasks, seqio
    task = seqio.get_mixture_or_task("glm_pretrain")
    dataset = task.get_dataset({"tokens": 512}, split="train", shuffle=True, seed=0)

This is the only package that imports TensorFlow.
"""

from glm_jax.errors import UserError, how_to_install
from glm_jax.tasks.quiet import without_chatter

try:
    with without_chatter():
        import seqio
        import tensorflow  # noqa: F401
        import tensorflow_text  # noqa: F401
except ModuleNotFoundError as error:
    raise UserError(
        f"glm_jax.tasks needs seqio and TensorFlow ({error}): install them with "
        f"{how_to_install('tasks')}, or build the token store on another machine with "
        "`python -m glm_jax.cache --config FILE` and give its directory as data.store"
    ) from error

from glm_jax.tasks.pretrain import pretrain_task as pretrain_task
from glm_jax.tasks.pretrain import register_glm_pretrain as register_glm_pretrain

if "glm_pretrain" not in seqio.TaskRegistry.names():
    register_glm_pretrain()
