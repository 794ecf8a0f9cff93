"""Builds the token stores of a config: `python -m glm_jax.cache --config FILE`.

Training does it by itself. Datasets and tasks need TensorFlow and SeqIO for it: elsewhere build the
store on a machine that has them, copy the directory, and give it as `data.store`.
"""

from pathlib import Path

from glm_jax import cli
from glm_jax.config import DataConfig
from glm_jax.errors import UserError
from glm_jax.files import replaced_directory


def main() -> None:
    parser = cli.Parser(
        prog="python -m glm_jax.cache", description="Tokenise a corpus into a token store."
    )
    cli.add_config_arguments(parser)
    parser.add_argument("--force", action="store_true", help="build it anew where it is there")
    args = parser.parse_args()

    from glm_jax.data.mixture_store import built, sources

    for part in sources(cli.config_from(args).data):
        there = part.directory.exists() and not args.force
        if not there:
            build(part.data, part.directory)
        for one in built([part]):
            name = f"{one.name}: " if one.name else ""
            print(f"{name}{'there already' if there else 'built'}: {describe(one.directory)}")


def build(data: DataConfig, directory: Path) -> None:
    """Builds the store in place of the one that may be there; that one goes last.

    Raises:
      ValueError: what `build_store` raises, or `directory` holds something else than a store.
    """
    if directory.exists() and not _is_store(directory):
        raise UserError(f"{str(directory)!r} is not a token store; remove it by hand")
    from glm_jax import pipeline

    with replaced_directory(directory, _is_store) as fresh:
        pipeline.build_store(data, fresh)


def _is_store(directory: Path) -> bool:
    from glm_jax.data import store
    from glm_jax.data.mixture_store import INDEX

    return any((directory / name).is_file() for name in (store.INDEX, INDEX))


def describe(directory: Path) -> str:
    """`"/path, train 1345 documents 992104 tokens, eval 34 documents 22035 tokens"`."""
    from glm_jax.data import store

    opened = store.TokenStore.open(directory)
    if opened.reading is not None:
        opened.reading.wait()
        opened.check()
    sizes = [
        f"{name} {len(documents)} documents {documents.num_tokens} tokens"
        for name, documents in opened.splits.items()
    ]
    return ", ".join([str(directory), *sizes])


if __name__ == "__main__":
    cli.run(main)
