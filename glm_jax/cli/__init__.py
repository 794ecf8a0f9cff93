"""What all commands share: options, standard input, errors and exit status."""

from glm_jax.cli.decoding import (
    DECODING,
    add_decoding_arguments,
    add_inference_arguments,
    add_quantize_arguments,
    add_sampling_arguments,
    inference_options,
    quantize_options,
)
from glm_jax.cli.ending import run
from glm_jax.cli.options import (
    Parser,
    add_adapter_argument,
    add_config_arguments,
    add_mesh_argument,
    add_process_arguments,
    add_set_argument,
    config_from,
    mesh,
    model,
    path,
    path_or_bucket,
    positive_integer,
    positive_number,
    text,
)
from glm_jax.cli.streams import read_input, read_line

__all__ = [
    "DECODING",
    "Parser",
    "add_adapter_argument",
    "add_config_arguments",
    "add_decoding_arguments",
    "add_inference_arguments",
    "add_mesh_argument",
    "add_process_arguments",
    "add_quantize_arguments",
    "add_sampling_arguments",
    "add_set_argument",
    "config_from",
    "inference_options",
    "mesh",
    "model",
    "path",
    "path_or_bucket",
    "positive_integer",
    "positive_number",
    "quantize_options",
    "read_input",
    "read_line",
    "run",
    "text",
]
