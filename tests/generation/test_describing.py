import jax

import glm_jax
from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh


def model(tokenizer=None, **changes):
    config = ModelConfig(vocab_size=32, num_layers=2, embed_dim=16, num_heads=2, **changes)
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return LanguageModel(config, create_params(config, mesh, seed=0), tokenizer)


def test_one_line_says_what_it_is():
    lm = model(max_positions=16)
    count = sum(leaf.size for leaf in jax.tree.leaves(lm.params))
    assert repr(lm) == (
        f"LanguageModel(2 layers x 16, fills blanks: {count:,} parameters, float32, 1 x cpu, "
        "no tokenizer)"
    )


def test_a_causal_model_with_its_tokenizer():
    lm = model(glm_jax.load_tokenizer(), position_encoding="rotary", param_dtype="bfloat16")
    assert "continues texts" in repr(lm)
    assert ", bfloat16, " in repr(lm)
    assert repr(lm).endswith(", tokenizer of 7,168 ids)")
