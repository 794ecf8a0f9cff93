"""Builds the token stores of a config: `python -m glm_jax.cache --config FILE`.

Training builds missing stores itself. Sources that are TFDS datasets or SeqIO tasks need TensorFlow
and SeqIO. To train where these are missing, build the store on a machine that has them, copy its
directory, and set `data.store` to the copy.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from glm_jax import cli
from glm_jax.buckets import is_url
from glm_jax.errors import UserError

if TYPE_CHECKING:
    from glm_jax.config import Config


def main() -> None:
    parser = cli.Parser(
        prog="python -m glm_jax.cache", description="Tokenises a corpus into a token store."
    )
    cli.add_config_arguments(parser)
    parser.add_argument("--force", action="store_true", help="build a store again if it exists")
    args = parser.parse_args()

    from glm_jax.data.mixture_store import built
    from glm_jax.pipeline import examples
    from glm_jax.pipeline.corpus import Corpus, rebuild

    config = cli.config_from(args)
    if args.force and is_url(config.data.store or ""):
        raise UserError(
            f"--force builds a store on this machine; data.store={config.data.store!r} is copied "
            "from its bucket instead, anew whenever it has changed"
        )
    if config.examples.format is not None:
        if config.train.init_from is not None:
            # What the model is decides how examples are made.
            from glm_jax.training.run.start import planned_config

            config = planned_config(config, args.overrides)
        _examples(config, args.force)
        if not config.examples.pretraining_rate:
            return
        config = examples.pretraining(config)
    corpus = Corpus(config)
    for part in corpus.sources:
        there = part.directory.exists() and not args.force
        if not there:
            rebuild(part.data, part.directory)
        for one in built([part]):
            name = f"{one.name}: " if one.name else ""
            print(f"{name}{'there already' if there else 'built'}: {describe(one.directory)}")


def _examples(config: "Config", force: bool) -> None:
    """Builds the store of the examples."""
    from glm_jax.pipeline import examples

    place = examples.directory(config)
    there = place.exists() and not force
    if not there:
        examples.rebuild(config, place)
    print(f"{'there already' if there else 'built'}: {examples.describe(place)}")


def describe(directory: Path) -> str:
    """A line on a store: "/path, train 1345 documents 992104 tokens, eval 34 documents .."."""
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
