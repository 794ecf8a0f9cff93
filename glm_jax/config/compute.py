"""The section `compute` of a config: how a model runs, apart from what it is."""

import dataclasses

from glm_jax.checks import check_choice, check_types

_CHOICES = {
    "dtype": ["float32", "bfloat16"],
    "remat": ["none", "full", "attention", "qkv", "qkv_attention", "dots"],
    "attention_backend": ["auto", "pallas_tpu", "pallas_gpu", "tokamax", "xla_chunked", "xla"],
}


@dataclasses.dataclass(frozen=True)
class ComputeConfig:
    """How a model runs. The same parameters compute the same function, up to rounding.

    Attributes:
      dtype: of activations, "float32" or "bfloat16"; softmax, norms and loss stay float32.
      scan_layers: run the layers as one `jax.lax.scan` over stacked parameters (compiles 3-8 times
        faster); None: scanned on accelerators, unrolled on CPU, where steps are faster unrolled.
      remat: what the backward pass recomputes: "none", "full" (each layer), or each layer except
        "attention" (its result), "qkv" (queries, keys, values), "qkv_attention" (both) or "dots"
        (all matrix products); `glm_jax/models/remat.py` says what each saves.
      attention_backend: "auto" takes the first that suits device and length: "pallas_tpu" and
        "pallas_gpu" (kernels without T x T arrays), "xla_chunked" (queries in chunks), "xla" (all
        pairs at once). "tokamax" (OpenXLA's kernel for Hopper, if that package is installed) is
        used only when named.
    """

    dtype: str = "float32"
    scan_layers: bool | None = None
    remat: str = "none"
    attention_backend: str = "auto"

    def __post_init__(self):
        check_types(self, "compute")
        for name, choices in _CHOICES.items():
            check_choice(f"compute.{name}", getattr(self, name), choices)
