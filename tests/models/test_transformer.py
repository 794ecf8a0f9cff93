import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from glm_jax.attention.dropout import mask_rows
from glm_jax.config import ComputeConfig, MeshConfig, ModelConfig
from glm_jax.models.params import bind, create_params
from glm_jax.models.trees import from_paths, stack_layers, to_paths, unstack_layers
from glm_jax.sharding.mesh import make_mesh

CONFIG = ModelConfig(
    vocab_size=48,
    num_layers=3,
    embed_dim=32,
    num_heads=4,
    max_positions=24,
    dropout_rate=0.2,
    attention_dropout_rate=0.2,
    initializer_range=0.2,
).resolved(ComputeConfig(scan_layers=False))
STACKED = CONFIG.with_compute(scan_layers=True)
KEY = jax.random.key(7)


@pytest.fixture(scope="module")
def params():
    return create_params(CONFIG, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)


def rows(batch=2, length=12, prefix=5, seed=0):
    rng = np.random.default_rng(seed)
    tokens = rng.integers(0, 48, (batch, length)).astype(np.int32)
    slots = np.broadcast_to(np.arange(length, dtype=np.int32), tokens.shape)
    positions = np.where(slots < prefix, slots, 3).astype(np.int32)
    blocks = np.maximum(slots - prefix + 1, 0).astype(np.int32)
    return tokens, positions, blocks, np.zeros_like(tokens), np.maximum(prefix, slots + 1)


def run(config, params, inputs, key=None):
    call = jax.jit(lambda p, x, k: bind(config, p)(*x, dropout_key=k))
    return np.asarray(call(params, inputs, key), np.float32)


def gradients(config, params, inputs, key=None):
    def loss(params):
        model = bind(config, params)
        return jnp.sum(jnp.square(model.logits(model(*inputs, dropout_key=key))))

    return to_paths(jax.jit(jax.grad(loss))(params))


@pytest.mark.parametrize("key", [None, KEY], ids=["plain", "dropout"])
def test_scanned_layers_are_unrolled_ones(params, key):
    np.testing.assert_allclose(
        run(STACKED, params, rows(), key), run(CONFIG, params, rows(), key), atol=2e-5
    )


def test_listed_layers_are_what_stacked_ones_are_split_into(params):
    listed = unstack_layers(params)
    np.testing.assert_array_equal(run(CONFIG, listed, rows()), run(CONFIG, params, rows()))
    np.testing.assert_array_equal(run(STACKED, listed, rows()), run(CONFIG, params, rows()))
    ours, theirs = gradients(CONFIG, params, rows()), gradients(CONFIG, listed, rows())
    together = to_paths(stack_layers(from_paths(theirs)))
    for path, gradient in ours.items():
        np.testing.assert_array_equal(gradient, together[path], err_msg=path)


@pytest.mark.parametrize(
    "variant",
    [
        {},
        {"num_layers": 1},
        {"residual": "sandwich", "norm": "rms_norm", "activation": "swiglu", "num_kv_heads": 2},
        {"position_encoding": "rotary", "biases": "qkv", "tied_embeddings": False, "head_dim": 16},
    ],
    ids=["glm", "one layer", "sandwich", "rotary"],
)
def test_what_is_left_unfinished_can_be_finished_anywhere(variant):
    """At all slots: the logits of the whole model. At some, in another order: theirs."""
    config = dataclasses.replace(CONFIG, **variant)
    params = create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)
    inputs = rows()

    @jax.jit
    def both(params):
        model = bind(config, params)
        open_ended = model.unfinished(*inputs)
        return model.logits(model(*inputs)), open_ended, model.finisher()(open_ended[:, [7, 2]])

    whole, open_ended, some = both(params)
    assert open_ended.shape == (2, 12, 32 + 4 * config.head_dim)
    np.testing.assert_allclose(some, whole[:, [7, 2]], atol=1e-5)


def test_stacked_layers_have_no_last_one_to_leave_unfinished(params):
    with pytest.raises(ValueError, match="unstack_layers"):
        bind(STACKED, params).unfinished(*rows())


@pytest.mark.parametrize("scanned", [False, True])
@pytest.mark.parametrize("remat", ["full", "dots"])
def test_rematerialisation_changes_no_gradient(params, remat, scanned):
    config = STACKED if scanned else CONFIG
    plain = gradients(config, params, rows(), KEY)
    ours = gradients(config.with_compute(remat=remat), params, rows(), KEY)
    # The gradient of a key's bias is 0 but for rounding: softmax does not see it.
    rounding = 1e-7 * max(float(jnp.abs(gradient).max()) for gradient in plain.values())
    for path, gradient in plain.items():
        limit = 1e-5 * float(jnp.abs(gradient).max()) + rounding
        np.testing.assert_allclose(ours[path], gradient, atol=limit, err_msg=path)


def count_products(jaxpr):
    count = 0
    for equation in jaxpr.eqns:
        count += equation.primitive.name == "dot_general"
        for inner in jax.tree.leaves(list(equation.params.values())):
            inner = getattr(inner, "jaxpr", inner)
            count += count_products(inner) if hasattr(inner, "eqns") else 0
    return count


@pytest.mark.parametrize("remat", ["none", "full", "dots"])
def test_rematerialisation_saves_what_it_says(params, remat):
    """Counts the matrix products: forward, backward, and those done again."""
    config = CONFIG.with_compute(remat=remat)

    def loss(params):
        return jnp.sum(bind(config, params)(*rows()))

    # Per layer: 6 linear and 2 attention products forward, twice that backward. "full" repeats the
    # forward pass but for its last product, "dots" the products of attention, which have a batch.
    products = count_products(jax.make_jaxpr(jax.grad(loss))(params).jaxpr)
    assert products == 3 * {"none": 8 + 16, "full": 8 + 16 + 7, "dots": 8 + 16 + 2}[remat]


def test_dropout_is_a_function_of_the_key(params):
    ours = run(CONFIG, params, rows(), KEY)
    np.testing.assert_array_equal(run(CONFIG, params, rows(), KEY), ours)
    assert (run(CONFIG, params, rows(), jax.random.key(8)) != ours).any()
    assert (run(CONFIG, params, rows()) != ours).any()


@pytest.mark.parametrize("name", ["dropout_rate", "attention_dropout_rate"])
def test_each_rate_has_its_sites(params, name):
    only = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0, name: 0.2}
    config = dataclasses.replace(CONFIG, **only)
    assert (run(config, params, rows(), KEY) != run(config, params, rows())).any()


def test_every_site_of_every_layer_has_its_key(params, monkeypatch):
    keys = []

    def record(x, rate, key):
        keys.append(jax.random.key_data(key).tobytes())
        return x

    def record_rows(key, shape):
        keys.append(jax.random.key_data(key).tobytes())
        return mask_rows(key, shape)

    monkeypatch.setattr("glm_jax.models.transformer.dropout", record)
    monkeypatch.setattr("glm_jax.attention.call.mask_rows", record_rows)
    bind(CONFIG, params)(*rows(), dropout_key=KEY)
    # The embeddings; attention's probabilities, its output and the MLP's in three layers.
    assert len(keys) == 1 + 3 * 3
    assert len(set(keys)) == len(keys)


def test_texts_packed_in_one_row_do_not_see_each_other(params):
    one, two = rows(1, 12, 5, seed=1), rows(1, 9, 4, seed=2)
    packed = [np.concatenate(pair, axis=1) for pair in zip(one, two, strict=True)]
    packed[3][:, 12:] += 12
    packed[4][:, 12:] += 12
    ours = run(CONFIG, params, packed)
    np.testing.assert_allclose(ours[:, :12], run(CONFIG, params, one), atol=2e-5)
    np.testing.assert_allclose(ours[:, 12:], run(CONFIG, params, two), atol=2e-5)


def test_padding_changes_nothing(params):
    whole = rows(1, 12, 5)
    padded = [np.pad(x, ((0, 0), (0, 4))) for x in whole]
    ours = run(CONFIG, params, padded)
    np.testing.assert_allclose(ours[:, :12], run(CONFIG, params, whole), atol=2e-5)
    assert np.isfinite(ours).all()


def test_bfloat16_compute_keeps_float32_logits(params):
    config = CONFIG.with_compute(dtype="bfloat16")
    model = bind(config, params)
    hidden = model(*rows())
    assert hidden.dtype == jnp.bfloat16
    assert model.logits(hidden).dtype == jnp.float32
    exact = run(CONFIG, params, rows())
    assert np.abs(np.asarray(hidden, np.float32) - exact).mean() < 0.03 * np.abs(exact).mean()


def test_one_table_of_positions_looks_at_no_block_positions():
    config = dataclasses.replace(CONFIG, position_encoding="learned")
    params = create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)
    assert params["positions"]["table"].shape == (24, 32)
    inputs = list(rows())
    before = run(config, params, inputs)
    inputs[2] = inputs[2] + 1
    np.testing.assert_array_equal(run(config, params, inputs), before)


def test_a_cache_needs_listed_layers(params):
    model = bind(STACKED, params)
    with pytest.raises(ValueError, match="listed layers"):
        model.extend(*rows(), [])
