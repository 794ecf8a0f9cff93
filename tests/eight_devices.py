"""Run by sharding/test_mesh.py in its own processes: splits over eight devices change no number.

python eight_devices.py               parameters, scores, losses, dropout, work
python eight_devices.py every         the same over three meshes, and a prefix
python eight_devices.py inference     what scores, fills and continues texts
python eight_devices.py quantised     quantised weights, in listed and in scanned layers
python eight_devices.py adapters      steps of LoRA and QLoRA, with dropout, in both layouts
"""

import os
import sys

os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
os.environ["JAX_PLATFORMS"] = "cpu"

import dataclasses
from unittest import mock

import jax
import numpy as np
from jax.sharding import PartitionSpec

from glm_jax.adapters.factors import Factors, factors_of, with_factors
from glm_jax.adapters.fingerprint import fingerprint
from glm_jax.adapters.quantised import num_inputs
from glm_jax.adapters.quantising import Quantize
from glm_jax.attention import dispatch as attention
from glm_jax.attention.platform import refuses_many_devices
from glm_jax.batch import Batch
from glm_jax.checkpoints.quantising import quantise_params
from glm_jax.config import (
    ComputeConfig,
    Config,
    DataConfig,
    LoraConfig,
    MeshConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from glm_jax.evaluation.rows import row_sums
from glm_jax.generation.kept_row import KeptRow
from glm_jax.generation.language_model import LanguageModel
from glm_jax.generation.options import Limits
from glm_jax.generation.sampling import Sampling
from glm_jax.losses.by_objective import token_losses
from glm_jax.models.params import bind, create_params
from glm_jax.models.trees import join_params, split_params, to_paths, unstack_layers
from glm_jax.sharding.mesh import batch_sharding, make_mesh
from glm_jax.training.state import create_state
from glm_jax.training.step import compile_train_step, make_train_step

CONFIG = ModelConfig(
    vocab_size=64,
    num_layers=2,
    embed_dim=32,
    num_heads=4,
    max_positions=16,
    initializer_range=0.2,
    dropout_rate=0.1,
    attention_dropout_rate=0.1,
).resolved(ComputeConfig(scan_layers=False))
# ChatGLM2's parts: two key heads, which a tensor axis of four cannot split.
CAUSAL = dataclasses.replace(
    CONFIG,
    num_kv_heads=2,
    activation="swiglu",
    norm="rms_norm",
    biases="qkv",
    tied_embeddings=False,
    position_encoding="rotary",
)
# Its two key heads are whole over a tensor axis of four, its hidden layer is split over fsdp.
PREFIXED = dataclasses.replace(CAUSAL, prefix_length=3, prefix_projection=16).with_sizes()
INPUTS = ("tokens", "positions", "block_positions", "attend_start", "attend_end")
SIZES = [(2, 2, 2, 1), (1, 2, 4, 1), (1, 2, 2, 2)]


def rows():
    rng = np.random.default_rng(0)
    tokens, targets = rng.integers(0, 64, (2, 8, 12)).astype(np.int32)
    places = np.broadcast_to(np.arange(12, dtype=np.int32), tokens.shape)
    return {
        "tokens": tokens,
        "targets": targets,
        "loss_weights": rng.integers(0, 3, tokens.shape).astype(np.float32),
        "positions": places,
        "block_positions": np.zeros_like(tokens),
        "attend_start": np.zeros_like(tokens),
        "attend_end": np.maximum(4, places + 1).astype(np.int32),
    }


def hidden_with_dropout(params, mesh, config=CONFIG):
    """As a training step has it: traced with the mesh set, so that activations are constrained."""
    fields = rows()
    inputs = jax.device_put([fields[name] for name in INPUTS], batch_sharding(mesh))

    def run(params, inputs):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return bind(config, params)(*inputs, dropout_key=jax.random.key(3))

    return np.asarray(jax.jit(run)(params, inputs))


def check_inference(one, mesh):
    """What scores, fills and continues texts sets the mesh, and finds what one device finds."""
    calls = []

    def spied(backend, call, merging, choose=attention._choose):
        calls.append((dict(jax.sharding.get_abstract_mesh().shape), refuses_many_devices()))
        return choose(backend, call, merging)

    def all_of(where):
        model = LanguageModel(CONFIG, create_params(CONFIG, where, seed=0))
        causal = LanguageModel(CAUSAL, create_params(CAUSAL, where, seed=0))
        blanks = {"mask_ids": [40], "start_id": 5}
        until = {"end_ids": [6], "max_new_tokens": 4}
        answers, texts = [[7, 6], [9, 8, 6]], [[3, 4, 5], [7]]
        batch = Batch.from_dict(rows())
        yield "fill", model.fill_blanks([1, 40, 3], **blanks, **until)
        yield "fill, beams", model.fill_blanks([1, 40, 3], num_beams=2, **blanks, **until)
        yield "score", np.round(model.score([1, 40, 3], answers, **blanks), 3).tolist()
        yield "sums", np.round(row_sums(model, batch)["losses"], 2).tolist()
        yield "generate", causal.generate(texts, max_new_tokens=5, eos_ids=[])
        prefixed = LanguageModel(PREFIXED, create_params(PREFIXED, where, seed=0))
        yield "generate, prefix", prefixed.generate(texts, max_new_tokens=5, eos_ids=[])
        row, limits = KeptRow(causal._engine()), Limits([], 4)
        yield (
            "turns",
            [row.continue_(ids, limits, Sampling()).ids for ids in ([3, 4, 5], [3, 4, 7, 8, 9])],
        )
        yield "generate, beams", causal.generate(texts, 5, eos_ids=[], num_beams=2)

    with mock.patch.object(attention, "_choose", spied):
        expected = dict(all_of(one))
        calls.clear()
        for name, found in all_of(mesh):
            assert found == expected[name], (name, found, expected[name])
            assert calls, name
            assert all(call == (dict(mesh.shape), None) for call in calls), (name, calls)
            calls.clear()


def check_causal(one, mesh):
    params, split = (create_params(CAUSAL, where, seed=0) for where in (one, mesh))
    hidden = hidden_with_dropout(params, one, CAUSAL)
    np.testing.assert_allclose(hidden_with_dropout(split, mesh, CAUSAL), hidden, atol=2e-5)
    logits = np.asarray(LanguageModel(CAUSAL, params).logits(rows()))
    np.testing.assert_allclose(LanguageModel(CAUSAL, split).logits(rows()), logits, atol=2e-5)


def check_prefix(one, mesh):
    """Hidden states with dropout, and the gradient of the prefix, in both layouts."""

    def all_of(where, scan):
        config = PREFIXED.resolved(ComputeConfig(scan_layers=scan))
        params = create_params(config, where, seed=0)
        yield hidden_with_dropout(params, where, config)

        def total(prefix, rest, batch):
            with jax.sharding.use_abstract_mesh(where.abstract_mesh):
                model = bind(config, {**rest, "prefix": prefix})
                return jax.numpy.sum(token_losses(model, batch) * batch.loss_weights)

        batch = jax.device_put(Batch.from_dict(rows()), batch_sharding(where))
        gradient = jax.jit(jax.grad(total))(params["prefix"], params, batch)
        yield from to_paths(gradient).values()

    expected = list(all_of(one, False))
    for scan in (False, True):
        for value, wanted in zip(all_of(mesh, scan), expected, strict=True):
            np.testing.assert_allclose(value, wanted, atol=2e-5 * np.abs(wanted).max())


def check_work(config):
    """No axis computes twice what another splits: a device's FLOPs are an eighth of all."""

    def flops(mesh):
        params = create_params(config, mesh, seed=0)
        batch = jax.tree.map(lambda field: jax.device_put(field, batch_sharding(mesh)), rows())
        names = ("tokens", "positions", "block_positions", "attend_start", "attend_end")

        def run(params, *inputs):
            with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
                return jax.numpy.sum(bind(config, params)(*inputs))

        run = jax.jit(jax.grad(run)).lower(params, *(batch[name] for name in names))
        return run.compile().cost_analysis()["flops"]

    least = flops(make_mesh(MeshConfig(data=1, fsdp=8)))
    for sizes in [(1, 4, 1, 2), (1, 2, 1, 4)]:
        share = flops(make_mesh(MeshConfig(*sizes))) / least
        assert share < 1.3, (sizes, share)


def check_state_bytes():
    """The compiled step takes as much state where eight devices split rows as where they do not."""

    def argument_bytes(*sizes):
        config = Config(
            model=ModelConfig(
                vocab_size=64, num_layers=1, embed_dim=32, num_heads=4, max_positions=16
            ),
            data=DataConfig(sequence_length=16, batch_size=8),
            train=TrainConfig(cross_entropy="plain"),
            mesh=MeshConfig(*sizes),
        )
        step = compile_train_step(config, make_mesh(config.mesh))
        return step.memory_analysis().argument_size_in_bytes

    least = argument_bytes(1, 8, 1, 1)
    assert [argument_bytes(*sizes) for sizes in [(1, 4, 1, 2), (1, 1, 1, 8)]] == [least] * 2


def check_quantised(one, mesh):
    """Logits and gradients of the norms of quantised models, layers listed and stacked."""
    for config, how in ((CAUSAL, Quantize(8)), (CONFIG, Quantize(4, 16, embedding=True))):
        params, split = (
            quantise_params(create_params(config, where, seed=0), where, how)
            for where in (one, mesh)
        )
        out = split["layers"]["attention"]["out"]["kernel"]
        assert out.values.sharding.spec == PartitionSpec(None, "tensor", None, "fsdp")
        assert out.values.addressable_shards[0].data.shape == (2, 2, 8, 16)
        assert out.num_groups == (2 if how.group_size else 1)
        model, ours = (LanguageModel(config, leaves) for leaves in (params, split))
        logits = np.asarray(model.logits(rows()))
        np.testing.assert_allclose(ours.logits(rows()), logits, atol=2e-5)
        expected = norm_gradients(params, one, config)
        for scanned in (True, False):
            found = norm_gradients(split, mesh, config.with_compute(scan_layers=scanned))
            for name, leaf in expected.items():
                np.testing.assert_allclose(found[name], leaf, atol=2e-5, err_msg=name)


def check_adapters(one):
    """Losses of three steps and the adapters after them, over plain matrices and integers."""
    plain = Config(
        model=dataclasses.replace(CAUSAL, dropout_rate=0.0).with_sizes(),
        data=DataConfig(sequence_length=16, batch_size=8),
        train=TrainConfig(init_from="base", accumulation_steps=2),
        optimizer=OptimizerConfig(warmup_steps=1, peak_learning_rate=1e-2),
        lora=LoraConfig(rank=3, targets="attention/.*, mlp/up", dropout=0.3),
    )
    integers = dataclasses.replace(
        plain.train, quantize_base="int4", quantize_group_size=8, accumulation_steps=1
    )

    def run(config, mesh, scan):
        compute, sizes = ComputeConfig(scan_layers=scan), MeshConfig(*mesh.shape.values())
        config = dataclasses.replace(config, compute=compute, mesh=sizes)
        params = create_params(config.resolved_model, mesh, seed=0)
        if config.train.quantize_base is not None:
            params = quantise_params(params, mesh, Quantize(4, 8))
        state, losses = create_state(config, mesh, params), []
        step = make_train_step(config, mesh)
        batch = jax.device_put(Batch.from_dict(rows()), batch_sharding(mesh))
        for _ in range(3):
            state, metrics = step(state, batch)
            losses.append(float(metrics["loss"]))
        return losses, fingerprint(state.frozen), jax.device_get(to_paths(state.trainable))

    for config, sizes, scan in (
        (plain, (2, 2, 2, 1), False),
        (dataclasses.replace(plain, train=integers), (1, 2, 2, 2), True),
    ):
        losses, base, trained = run(config, one, scan)
        assert losses[2] < losses[0]
        found, frozen, ours = run(config, make_mesh(MeshConfig(*sizes)), scan)
        assert frozen == base
        np.testing.assert_allclose(found, losses, rtol=1e-5)
        for path, leaf in trained.items():
            np.testing.assert_allclose(ours[path].a, leaf.a, atol=2e-4, err_msg=path)
            np.testing.assert_allclose(ours[path].b, leaf.b, atol=2e-4, err_msg=path)


def check_factors(one, mesh):
    """Factors that are put beside the shards of a model, taken from it, and folded in."""
    config = CAUSAL.resolved()
    params, split = (create_params(config, where, seed=0) for where in (one, mesh))
    factors, random = {}, np.random.default_rng(0)
    for path, leaf in to_paths(unstack_layers(params)).items():
        if path.startswith("layers/") and path.endswith("/kernel"):
            inputs = num_inputs(path)
            a = random.normal(0, 0.1, (*leaf.shape[:inputs], 3))
            b = random.normal(0, 0.1, (3, *leaf.shape[inputs:]))
            factors[path] = Factors(np.float32(a), np.float32(b), 1.5)
    model, ours = (
        LanguageModel(config, with_factors(leaves, factors, where))
        for leaves, where in ((params, one), (split, mesh))
    )
    logits = np.asarray(model.logits(rows()))
    np.testing.assert_allclose(ours.logits(rows()), logits, atol=2e-5)
    taken = factors_of(ours.params)
    for path, part in factors.items():
        np.testing.assert_array_equal(taken[path].a, part.a, err_msg=path)
        np.testing.assert_array_equal(taken[path].b, part.b, err_msg=path)
    bases, merged = to_paths(ours.params), ours.merged()
    for path, leaf in to_paths(merged.params).items():
        base = bases[path].base if path in factors else bases[path]
        assert leaf.sharding.is_equivalent_to(base.sharding, leaf.ndim), path
    np.testing.assert_allclose(merged.logits(rows()), logits, atol=2e-5)
    prompt, options = [[3, 5, 7]], {"max_new_tokens": 5, "eos_ids": []}
    assert ours.generate(prompt, **options) == model.generate(prompt, **options)


def norm_gradients(params, mesh, config):
    """Of a loss with respect to the norms, all else frozen."""
    trained, frozen = split_params(params, ".*norm/.*")
    inputs = jax.device_put(rows(), batch_sharding(mesh))

    @jax.jit
    def run(trained, frozen, inputs):
        def loss(trained):
            hidden = bind(config, join_params(trained, frozen))(*[inputs[name] for name in INPUTS])
            return (hidden.astype("float32") ** 2).mean()

        return jax.grad(loss)(trained)

    with jax.set_mesh(mesh):
        return jax.device_get(to_paths(run(trained, frozen, inputs)))


def main():
    one = make_mesh(MeshConfig(), jax.devices()[:1])
    if sys.argv[1:] == ["inference"]:
        check_inference(one, make_mesh(MeshConfig(2, 2, 2, 1)))
        return
    if sys.argv[1:] == ["quantised"]:
        check_quantised(one, make_mesh(MeshConfig(2, 2, 2, 1)))
        check_factors(one, make_mesh(MeshConfig(1, 2, 2, 2)))
        return
    if sys.argv[1:] == ["adapters"]:
        check_adapters(one)
        return
    params = create_params(CONFIG, one, seed=0)
    model = LanguageModel(CONFIG, params)
    logits, loss = np.asarray(model.logits(rows())), float(model.loss(rows()))
    hidden = hidden_with_dropout(params, one)
    ids = [1, 2, 40, 3, 40]
    options = {"mask_ids": [40], "start_id": 5, "end_ids": [6], "max_new_tokens": 4}
    answers = model.fill_blanks(ids, **options)
    every = sys.argv[1:] == ["every"]
    sizes = SIZES if every else SIZES[-1:]
    for data, fsdp, tensor, sequence in sizes:
        mesh = make_mesh(MeshConfig(data, fsdp, tensor, sequence))
        split = create_params(CONFIG, mesh, seed=0)
        for path, leaf in to_paths(split).items():
            np.testing.assert_array_equal(leaf, to_paths(params)[path], err_msg=path)
        kernel = split["layers"]["mlp"]["up"]["kernel"]
        shape = (CONFIG.num_layers, 32 // (fsdp * sequence), 128 // tensor)
        assert kernel.addressable_shards[0].data.shape == shape
        ours = LanguageModel(CONFIG, split)
        np.testing.assert_allclose(ours.logits(rows()), logits, atol=2e-5)
        np.testing.assert_allclose(ours.loss(rows()), loss, rtol=1e-6)
        # Places that the sequence axis does not divide lie everywhere.
        odd = {name: field[:, :11] for name, field in rows().items()}
        np.testing.assert_allclose(ours.logits(odd), logits[:, :11], atol=2e-5)
        np.testing.assert_allclose(hidden_with_dropout(split, mesh), hidden, atol=2e-5)
        scanned = hidden_with_dropout(split, mesh, CONFIG.with_compute(scan_layers=True))
        np.testing.assert_allclose(scanned, hidden, atol=2e-5)
        assert ours.fill_blanks(ids, **options) == answers
        print(f"{data}x{fsdp}x{tensor}x{sequence}")
    check_causal(one, make_mesh(MeshConfig(1, 2, 4, 1)))
    for each in sizes[-2:] if every else ():
        check_prefix(one, make_mesh(MeshConfig(*each)))
    wide = dataclasses.replace(CONFIG, embed_dim=128, dropout_rate=0.0, attention_dropout_rate=0.0)
    check_work(wide)
    check_state_bytes()


if __name__ == "__main__":
    main()
