"""Options about decoding: how ids are chosen, what is planned of it, and in which weights."""

import argparse
from typing import TypedDict

from glm_jax.cli.options import positive_integer
from glm_jax.errors import UserError

# What `add_decoding_arguments` adds: options of `glm_jax.generation.texts`.
DECODING = (
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "num_beams",
    "length_penalty",
    "min_new_tokens",
    "no_repeat_ngram",
)


def add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments named in `DECODING`."""
    parser.add_argument(
        "--max_new_tokens",
        type=int,
        default=64,
        help="length of the longest answer in tokens (default: %(default)s)",
    )
    add_sampling_arguments(parser)
    parser.add_argument(
        "--num_beams",
        type=int,
        help="beam search with this many beams; 1, the default: no search",
    )
    parser.add_argument(
        "--length_penalty",
        type=float,
        help="exponent P of a search, which ranks answers by log-probability / length^P; 0 prefers "
        "short answers (default: 1.0)",
    )
    parser.add_argument(
        "--min_new_tokens",
        type=int,
        default=0,
        help="length of the shortest answer in tokens (default: %(default)s)",
    )
    parser.add_argument(
        "--no_repeat_ngram",
        type=int,
        default=0,
        metavar="N",
        help="no sequence of N tokens occurs twice in an answer; 0, the default: no such limit",
    )


def add_sampling_arguments(parser: argparse.ArgumentParser, advice: str = "") -> None:
    """Adds --temperature, --top_k, --top_p and --seed, fields of a `Sampling`.

    Args:
      parser: of a command that generates.
      advice: on the temperature, at the end of its help.
    """
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        help=f"0, the default: always the most probable token{advice}",
    )
    parser.add_argument(
        "--top_k", type=int, default=0, help="sample from the k most probable tokens; 0: from all"
    )
    parser.add_argument(
        "--top_p",
        type=float,
        default=1.0,
        help="sample from the most probable tokens that together have this probability",
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="seed of sampling (default: %(default)s)"
    )


def add_inference_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds `--inference` of `plan` and what goes with it; `inference_options` reads them."""
    group = parser.add_argument_group("decoding instead of training")
    group.add_argument(
        "--inference",
        action="store_true",
        help="plan a step of decoding on one device: weights, KV cache, workspace, time",
    )
    group.add_argument(
        "--model",
        metavar="NAME",
        help="a published model in bfloat16 instead of --config: chatglm-6b, chatglm3-6b, "
        "glm4-9b-chat, ..",
    )
    group.add_argument(
        "--quantize",
        choices=["int8", "int4"],
        help="the matrices of the layers, a scale per output; without it: compute.dtype",
    )
    group.add_argument(
        "--batch", type=positive_integer, metavar="N", help="rows decoded together (default 1)"
    )
    group.add_argument(
        "--context",
        type=positive_integer,
        metavar="N",
        help="slots of each row in the KV cache (default model.max_positions)",
    )


class InferenceOptions(TypedDict):
    """The arguments of `glm_jax.planning.inference.attempted_inference` by name."""

    quantize: str | None
    batch_size: int
    context: int | None


def inference_options(args: argparse.Namespace) -> InferenceOptions | None:
    """The options of `add_inference_arguments` by name; None: without --inference.

    Raises:
      UserError: options of decoding without --inference, or of training with it.
    """
    decoding = ("model", "quantize", "batch", "context")
    others = ("tune", "tune_layers", "sequences_per_chip")
    for name in others if args.inference else decoding:
        if getattr(args, name):
            problem = "is for training, not for" if args.inference else "needs"
            raise UserError(f"--{name} {problem} --inference")
    if not args.inference:
        return None
    return {"quantize": args.quantize, "batch_size": args.batch or 1, "context": args.context}


def add_quantize_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Adds `--quantize` and what goes with it; `quantize_options` reads them.

    Args:
      default: what happens without it, for --help.
    """
    group = parser.add_argument_group("quantised weights")
    group.add_argument(
        "--quantize",
        choices=["int8", "int4"],
        help="the matrices of the layers as integers of 8 or 4 bits, with a scale per output as "
        f"ChatGLM is published; without it: {default}",
    )
    group.add_argument(
        "--group_size",
        type=positive_integer,
        metavar="N",
        help="a scale per output and N inputs, 128 for example: closer, and slower on a TPU",
    )
    group.add_argument(
        "--scale_search",
        action="store_true",
        help="search the scales with the smallest squared error; takes some times as long",
    )
    group.add_argument(
        "--quantize_embedding",
        action="store_true",
        help="the token embedding and the LM head too",
    )


class QuantizeOptions(TypedDict):
    """The fields of `glm_jax.Quantize`."""

    bits: int
    group_size: int | None
    search: bool
    embedding: bool


def quantize_options(args: argparse.Namespace) -> QuantizeOptions | None:
    """The fields of a `glm_jax.Quantize`, by the options of `add_quantize_arguments`; None: none.

    Raises:
      UserError: one of them without --quantize.
    """
    if args.quantize is not None:
        return {
            "bits": int(args.quantize[len("int") :]),
            "group_size": args.group_size,
            "search": args.scale_search,
            "embedding": args.quantize_embedding,
        }
    named = {
        "--group_size": args.group_size is not None,
        "--scale_search": args.scale_search,
        "--quantize_embedding": args.quantize_embedding,
    }
    alone = next((name for name, is_given in named.items() if is_given), None)
    if alone is not None:
        raise UserError(f"{alone} goes with --quantize int8 or int4, which is missing")
    return None
