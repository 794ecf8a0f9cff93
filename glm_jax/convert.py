"""Converts a model: `python -m glm_jax.convert SRC DST [--to huggingface|orbax] [--names native]`.

Tensors are read and written one at a time. Between two Hugging Face directories only a few of them
are in memory. Otherwise the host holds the whole model once, in its final dtype, with --quantize as
integers; or several hosts hold a share each, on which the same command is started with
--coordinator and the like.
"""

import argparse
import functools
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from glm_jax import cli
from glm_jax.errors import UserError
from glm_jax.training.run.processes import run_alike

if TYPE_CHECKING:
    from jax.sharding import Mesh

    from glm_jax.adapters.quantising import Quantize
    from glm_jax.interop.huggingface import Progress

T = TypeVar("T")


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if args.to == "orbax" and args.names != "as_loaded":
        raise UserError("--names is for --to huggingface; orbax uses this project's own names")
    if args.dequantize and args.quantize is not None:
        raise UserError("--dequantize and --quantize ask for opposite things; give one of them")

    return run_alike(lambda: _run(args), args)


def _run(args: argparse.Namespace) -> None:
    from glm_jax.checkpoints.disk import disk_trouble

    try:
        _convert(args)
    except UserError:
        raise
    except Exception as error:
        trouble = disk_trouble(error) or (str(error) if isinstance(error, OSError) else None)
        if trouble is None:
            raise
        raise UserError(f"{str(args.destination)!r} could not be written: {trouble}") from error


def _convert(args: argparse.Namespace) -> None:
    import jax

    from glm_jax.adapters.quantising import Quantize
    from glm_jax.checkpoints.conversion import (
        check_apart,
        check_folds,
        check_target,
        dequantised_source,
        describe,
        look,
        quantised_source,
        rewrite,
    )
    from glm_jax.config.training import MeshConfig
    from glm_jax.sharding.mesh import make_mesh
    from glm_jax.training.distributed import is_first, on_first, share

    # Nothing is computed, so accelerators, whose memory may be small, are not used.
    several = share()[1] > 1
    if several and args.to == "orbax":
        raise UserError("several processes write --to huggingface; --to orbax is for one")
    devices = jax.devices("cpu")
    mesh = make_mesh(MeshConfig(data=1, fsdp=-1), devices if several else devices[:1])
    options = cli.quantize_options(args)
    how = None if options is None else Quantize(**options)
    source = planned = look(args.source, args.dtype, mesh, args.adapter)
    if how is not None:
        planned = quantised_source(source, how)
    elif args.dequantize:
        planned = dequantised_source(source)
    else:
        check_folds(source)
    report = describe(planned, args.destination, args.to, args.names)
    for path in filter(None, (args.source, args.adapter)):
        check_apart(path, args.destination)
    check_target(args.destination, args.to)
    replaces = args.destination.is_dir() and any(args.destination.iterdir())
    if args.dry_run:
        if is_first():
            print(report)
            print(f"would write  {args.destination}" + ", in place of the model there" * replaces)
        return
    if replaces and not args.overwrite:
        on_first(lambda: _ask(args.destination), "replace the model there")
    as_it_is = planned is source and args.adapter is None
    if args.to == "huggingface" and source.checkpoint is not None and as_it_is:
        rewriting = functools.partial(rewrite, source, args.destination, args.names)
        on_first(lambda: rewriting(_bar("converting")), "write the model")
    else:
        _load_and_save(args, mesh, how, source.folds)
    if is_first():
        print(report)
        print(f"written      {args.destination}")


def _load_and_save(
    args: argparse.Namespace, mesh: "Mesh", how: "Quantize | None", folds: bool
) -> None:
    """Reads the model and writes it; one whose LoRA is folded in is quantised once it is."""
    from glm_jax.checkpoints.quantising import quantise_params
    from glm_jax.generation.language_model import load

    first = None if folds else how
    reading = {"progress": _bar("reading"), "quantize": first, "adapter": args.adapter}
    model = load(args.source, args.dtype, mesh=mesh, **reading)
    if folds and how is not None:
        model = model.merged()
        model.params = quantise_params(model.params, mesh, how)
    model.save(args.destination, args.to, args.names, _bar("writing"), args.dequantize)


def _ask(destination: Path) -> None:
    """Asks at the terminal whether a model may be replaced.

    Raises:
      UserError: the answer is no, or there is no terminal.
    """
    name = repr(str(destination))
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UserError(
            f"{name} holds a model already; --overwrite replaces it, or give another directory"
        )
    print(f"{name} holds a model already; replace it? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UserError(f"{name} stays as it is; nothing written")


def _bar(verb: str) -> "Progress":
    """A progress bar over tensors, on standard error."""
    from tqdm import tqdm

    def progress(items: Iterable[T], total: int) -> Iterable[T]:
        return tqdm(items, verb, total, unit="tensor", file=sys.stderr)

    return progress


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="python -m glm_jax.convert",
        description="Converts a model between directories of Hugging Face and of this project.",
        epilog="A LoRA is folded into the matrices, a prefix stands beside them. An interrupted "
        "conversion leaves nothing at DST.",
    )
    parser.add_argument(
        "source",
        type=cli.model,
        metavar="SRC",
        help="a Hugging Face directory, a workdir of glm_jax.train, one of its checkpoints, or "
        "bundled: the small model of the package",
    )
    parser.add_argument(
        "destination",
        type=cli.path_or_bucket,
        metavar="DST",
        help="the directory to write; if it is a link, its target is written; or gs://BUCKET/NAME",
    )
    parser.add_argument("--to", choices=["huggingface", "orbax"], default="huggingface")
    parser.add_argument(
        "--names",
        choices=["as_loaded", "original", "native"],
        default="as_loaded",
        help="names of the tensors: those of SRC, those of the model's own code, or those of "
        "transformers",
    )
    cli.add_adapter_argument(parser)
    parser.add_argument(
        "--dtype", choices=["float32", "bfloat16", "float16"], help="default: each tensor's own"
    )
    cli.add_quantize_arguments(parser, "as they are in SRC")
    parser.add_argument(
        "--dequantize",
        action="store_true",
        help="write a quantised SRC as a plain model, of --dtype",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a model in DST (without it: asks at a terminal, refuses elsewhere)",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="print what would be written, and write nothing"
    )
    cli.add_process_arguments(parser)
    return parser


if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"
    cli.run(main)
