import pytest
from jax.sharding import AbstractMesh

from glm_jax.config import ComputeConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.running_batch import RunningBatch
from glm_jax.models.variants import VARIANTS
from glm_jax.serving import memory
from glm_jax.sharding.mesh import AXES

BFLOAT16 = ComputeConfig(dtype="bfloat16")


def test_a_row_of_chatglm2():
    """28 layers, 2 heads of 128, keys and values, 2 bytes: 28,672 bytes an id."""
    config = VARIANTS["chatglm2-6b"].resolved(BFLOAT16)
    assert memory.row_bytes(config, 1) == 28_672
    assert memory.row_bytes(config, 4096) == 117_440_512


def test_a_batch_holds_what_is_said(causal_lm):
    batch = RunningBatch(causal_lm._engine(), 4, 64, 16)
    held = sum(leaf.nbytes for one in batch._slots.caches for leaf in (one.keys, one.values))
    assert held == 4 * memory.row_bytes(causal_lm.config, 64)
    assert memory.check_caches(causal_lm.config, 4, 64, 3, None) == 9 * held // 4


@pytest.mark.parametrize(("tensor", "parts"), [(1, 1), (2, 2), (4, 1)])
def test_a_cache_is_split_where_the_axis_divides_the_heads_of_keys(tensor, parts):
    """ChatGLM2 has two. That caches lie so is asserted in on_eight_devices.py."""
    config = VARIANTS["chatglm2-6b"].resolved(BFLOAT16)
    mesh = AbstractMesh((1, 1, tensor, 1), AXES)
    whole = memory.check_caches(config, 8, 4096, 4, None)
    assert memory.check_caches(config, 8, 4096, 4, None, mesh) == whole // parts


def test_a_model_that_fills_blanks_keeps_no_rows():
    config = ModelConfig(vocab_size=50, embed_dim=24).resolved()
    assert memory.num_rows(config, 8, 4) == 10


def test_what_does_not_fit_is_refused_with_both_sizes():
    config = VARIANTS["chatglm2-6b"].resolved(BFLOAT16)
    with pytest.raises(UserError, match=r"8 slots of 4,096 tokens take 1.5 GiB .* 1.0 GiB left"):
        memory.check_caches(config, 8, 4096, 4, 1 << 30)


@pytest.mark.parametrize(
    ("shape", "context"),
    [
        ({"position_encoding": "rotary", "max_positions": 32_768}, 4096),
        ({"position_encoding": "rotary", "max_positions": 512}, 512),
        ({"position_encoding": "learned_block", "max_positions": 64}, 256),
        ({"position_encoding": "rotary_block", "max_positions": 2048}, 2048),
    ],
)
def test_ids_of_a_row_where_none_are_given(shape, context):
    config = ModelConfig(vocab_size=50, embed_dim=96, **shape).resolved()
    assert memory.default_context(config) == context
