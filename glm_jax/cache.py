"""Builds the token stores of a config: `python -m glm_jax.cache --config FILE`.

Training does it by itself. Datasets and tasks need TensorFlow and SeqIO for it: elsewhere build the
store on a machine that has them, copy the directory, and give it as `data.store`.
"""

from pathlib import Path

from glm_jax import cli


def main() -> None:
    parser = cli.Parser(
        prog="python -m glm_jax.cache", description="Tokenise a corpus into a token store."
    )
    cli.add_config_arguments(parser)
    parser.add_argument("--force", action="store_true", help="build it anew where it is there")
    args = parser.parse_args()

    from glm_jax.data.mixture_store import built
    from glm_jax.pipeline.corpus import Corpus, rebuild

    corpus = Corpus(cli.config_from(args))
    for part in corpus.sources:
        there = part.directory.exists() and not args.force
        if not there:
            rebuild(part.data, part.directory)
        for one in built([part]):
            name = f"{one.name}: " if one.name else ""
            print(f"{name}{'there already' if there else 'built'}: {describe(one.directory)}")


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
