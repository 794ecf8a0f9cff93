"""The same LoRA here and in PEFT: logits and matrices, both directions, under all names."""

import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import glm_jax
from tests.interop.lora_directories import (
    BASES,
    GOLDEN,
    base_of,
    logits,
    random_pairs,
    write_lora,
    write_model,
)

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

FAMILIES = {"glm4_9b": "Glm", "glm4_0414": "Glm4"}
IDS = np.random.default_rng(3).integers(3, 300, (2, 10))
FEW = ["q_proj", "v_proj"]
CASES = {
    "few": {"target_modules": FEW},
    "rslora": {"target_modules": FEW, "use_rslora": True},
    "all-linear": {"target_modules": "all-linear"},
    "patterns": {
        "target_modules": "all-linear",
        "rank_pattern": {"gate_up_proj": 6, r"layers\.1\.self_attn\.q_proj": 2},
        "alpha_pattern": {"model.layers.0.mlp.down_proj": 3, "gate_up_proj": 4},
    },
    "a-regular-expression": {"target_modules": r".*\.1\..*(o_proj|down_proj)"},
    "excluded": {"target_modules": "all-linear", "exclude_modules": ["layers.0.mlp.gate_up_proj"]},
    "from-other-draws": {"target_modules": FEW, "init_lora_weights": "orthogonal"},
}


def theirs(name):
    kind = getattr(transformers, f"{FAMILIES[name]}ForCausalLM")
    path = GOLDEN / "chatglm" / name
    return kind.from_pretrained(path, attn_implementation="eager", dtype=torch.float32)


def ours(name, adapter=None):
    return glm_jax.load(GOLDEN / "chatglm" / name, adapter=adapter)


def their_logits(model):
    with torch.no_grad():
        return model.eval()(torch.from_numpy(IDS)).logits.numpy()


def trained(name, path, **values):
    """A LoRA that PEFT trained by a few steps of SGD and saved, and its model."""
    torch.manual_seed(5)
    config = peft.LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, **values)
    model, ids = peft.get_peft_model(theirs(name), config), torch.from_numpy(IDS)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, 0.5)
    for _ in range(4):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(path)
    return model


@pytest.mark.parametrize(
    ("name", "case"),
    [*(("glm4_9b", case) for case in CASES), ("glm4_0414", "rslora"), ("glm4_0414", "patterns")],
)
def test_what_they_trained_is_loaded_and_written_back(name, case, tmp_path):
    model = trained(name, tmp_path / "theirs", **CASES[case])
    expected = their_logits(model)
    assert np.abs(expected - their_logits(theirs(name))).max() > 0.05
    found = ours(name, tmp_path / "theirs")
    np.testing.assert_allclose(logits(found, IDS), expected, atol=1e-4, rtol=0)
    found.save(tmp_path / "ours", format="peft")
    again = peft.PeftModel.from_pretrained(theirs(name), tmp_path / "ours")
    np.testing.assert_allclose(their_logits(again), expected, atol=1e-6, rtol=0)
    states = [peft.get_peft_model_state_dict(one) for one in (again, model)]
    assert states[0].keys() == states[1].keys()
    for key, tensor in states[1].items():
        torch.testing.assert_close(states[0][key], tensor, atol=0, rtol=0)
    assert again.peft_config["default"].base_model_name_or_path == name


@pytest.mark.parametrize("name", FAMILIES)
def test_parts_with_an_a_of_their_own_are_loaded_by_them(name, tmp_path):
    """gate and up apart, with ranks and scales of their own, in their one gate_up_proj."""
    _, tensors = base_of(name)
    adapter = write_lora(tmp_path / "lora", random_pairs(tensors, ["gate_up_proj", "o_proj"]))
    model = ours(name, adapter)
    for index, layer in model.params["layers"].items():
        mlp, random = layer["mlp"], np.random.default_rng(int(index))
        for part, rank, scale in (("gate", 2, 0.7), ("up", 5, 1.9)):
            kernel = mlp[part]["kernel"]
            a, b = (kernel.a.shape[0], rank), (rank, kernel.b.shape[1])
            mlp[part]["kernel"] = type(kernel)(
                kernel.base,
                jnp.float32(random.normal(0, 0.1, a)),
                jnp.float32(random.normal(0, 0.1, b)),
                scale,
            )
    model.save(tmp_path / "ours", format="peft")
    again = peft.PeftModel.from_pretrained(theirs(name), tmp_path / "ours")
    np.testing.assert_allclose(their_logits(again), logits(model, IDS), atol=1e-4, rtol=0)


class Named(torch.nn.Module):
    """Matrices under published names, which is all of a model that PEFT asks for."""

    def __init__(self, tensors):
        super().__init__()
        for key, tensor in tensors.items():
            *parents, last = key.removesuffix(".weight").split(".")
            if not key.endswith(".weight") or tensor.ndim != 2 or "embeddings" in last:
                continue
            module = self
            for parent in parents:
                if not hasattr(module, parent):
                    module.add_module(parent, torch.nn.Module())
                module = getattr(module, parent)
            linear = torch.nn.Linear(*tensor.shape[::-1], bias=False)
            linear.weight.data = torch.from_numpy(tensor.copy())
            module.add_module(last, linear)

    def prepare_inputs_for_generation(self):
        """PEFT looks whether it is there."""


@pytest.mark.parametrize("name", ["glm", "chatglm1", "chatglm2", "chatglm3"])
def test_matrices_of_published_names_are_merged_alike(name, tmp_path):
    config, tensors = base_of(name)
    base = write_model(tmp_path / "base", config, tensors)
    random = torch.Generator().manual_seed(1)
    lora = peft.LoraConfig(
        task_type="CAUSAL_LM", r=3, lora_alpha=7, use_rslora=True, target_modules=[*BASES[name]]
    )
    model = peft.get_peft_model(Named(tensors), lora)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            parameter.data = torch.randn(parameter.shape, generator=random) / 5
    model.save_pretrained(tmp_path / "theirs")
    ours = glm_jax.load(base, adapter=tmp_path / "theirs")
    ours.save(tmp_path / "ours", format="peft")
    ours.save(tmp_path / "merged")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    for directory in ("theirs", "ours"):
        one = peft.PeftModel.from_pretrained(Named(tensors), tmp_path / directory)
        state = one.merge_and_unload().state_dict()
        changed = 0
        for key, tensor in state.items():
            np.testing.assert_allclose(merged[key], tensor.numpy(), atol=2e-6, rtol=0, err_msg=key)
            changed += not np.array_equal(tensor.numpy(), tensors[key])
        assert changed == 4 * ours.config.num_layers


@pytest.mark.parametrize("targets", [["query_key_value"], ["query_key_value", "dense_h_to_4h"]])
def test_parts_of_transformers_names_are_merged_alike_in_published_ones(targets, tmp_path):
    _, tensors = base_of("glm4_9b")
    native = {"query_key_value": ["q_proj", "v_proj"], "dense_h_to_4h": ["gate_up_proj"]}
    pairs = random_pairs(tensors, [part for target in targets for part in native[target]])
    model = ours("glm4_9b", write_lora(tmp_path / "lora", pairs))
    model.save(tmp_path / "original", format="peft", names="original")
    ours("glm4_9b").save(tmp_path / "base", names="original")
    model.save(tmp_path / "merged", names="original")
    tensors = load_file(tmp_path / "base" / "model.safetensors")
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    one = peft.PeftModel.from_pretrained(Named(tensors), tmp_path / "original")
    for key, tensor in one.merge_and_unload().state_dict().items():
        np.testing.assert_allclose(merged[key], tensor.numpy(), atol=2e-6, rtol=0, err_msg=key)
