"""A loaded model in one line."""

import math
from typing import TYPE_CHECKING

import jax

from glm_jax.models.trees import to_paths
from glm_jax.models.variants import variant_name

if TYPE_CHECKING:
    from glm_jax.generation.language_model import LanguageModel


def describe(model: "LanguageModel") -> str:
    """`LanguageModel(chatglm3-6b: 6,243,584,000 parameters, bfloat16, 1 x gpu, no tokenizer)`.

    A shape that no published model has is described: `4 layers x 256, fills blanks`.
    """
    config, leaves = model.config, jax.tree.leaves(model.params)
    name = variant_name(config)
    if name is None:
        does = "continues texts" if config.continues_texts else "fills blanks"
        name = f"{config.num_layers} layers x {config.embed_dim}, {does}"
    dtypes = sorted({str(leaf.dtype) for leaf in leaves})
    devices = {device for leaf in leaves for device in leaf.devices()}
    platforms = sorted({device.platform for device in devices})
    tokenizer = "no tokenizer"
    if model.tokenizer is not None:
        tokenizer = f"tokenizer of {model.tokenizer.vocab_size:,} ids"
    parts = [
        f"{sum(math.prod(leaf.shape) for leaf in to_paths(model.params).values()):,} parameters",
        "+".join(dtypes),
        f"{len(devices)} x {'+'.join(platforms)}",
        tokenizer,
    ]
    return f"LanguageModel({name}: {', '.join(parts)})"
