"""LoRA directories with random factors, and the models that they are for with the products added.

A product is added to the published matrix by numpy, in the published layout, so that what is
expected knows nothing of parts of fused matrices or of the order of features.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

GOLDEN = Path(__file__).parents[1] / "golden"
PEFT = GOLDEN / "peft"
# Base -> its modules, by the last part of their names.
BASES = {
    "glm": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "chatglm1": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "chatglm2": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "chatglm3": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "glm4_9b": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"),
    "glm4_0414": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_up_proj", "down_proj"),
}


def base_of(name):
    """(config.json, tensors) of a base."""
    if name == "glm":
        directory = GOLDEN / "glm" / "generation"
        config = json.loads((directory / "cases.json").read_text())["config"]
        return config, load_file(directory / "state_dict.safetensors")
    directory = GOLDEN / "chatglm" / name
    config = json.loads((directory / "config.json").read_text())
    return config, load_file(directory / "model.safetensors")


def write_model(path, config, tensors):
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / "model.safetensors")
    return path


def random_pairs(tensors, targets, rank=3, seed=0):
    """Module -> (A [rank, inputs], B [outputs, rank]), for those whose last part is a target."""
    random = np.random.default_rng(seed)
    pairs = {}
    for key in sorted(tensors):
        module = key.removesuffix(".weight")
        if module != key and module.rpartition(".")[2] in targets:
            outputs, inputs = tensors[key].shape
            a = random.normal(0, inputs**-0.5, (rank, inputs))
            pairs[module] = np.float32(a), np.float32(random.normal(0, 0.2, (outputs, rank)))
    return pairs


def write_lora(path, pairs, **values):
    """A directory of PEFT; a value of None leaves a key out."""
    path.mkdir()
    rank = len(next(iter(pairs.values()))[0])
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": 2 * rank}
    config["target_modules"] = sorted({module.rpartition(".")[2] for module in pairs})
    config = {key: value for key, value in {**config, **values}.items() if value is not None}
    (path / "adapter_config.json").write_text(json.dumps(config))
    tensors = {
        f"base_model.model.{module}.lora_{letter}.weight": factor
        for module, pair in pairs.items()
        for letter, factor in zip("AB", pair, strict=True)
    }
    save_file(tensors, path / "adapter_model.safetensors")
    return path


def read_pairs(path):
    """(config, module -> (A, B)) of a directory."""
    tensors = load_file(path / "adapter_model.safetensors")
    names = {key.removeprefix("base_model.model.").rpartition(".lora_")[0] for key in tensors}
    config = json.loads((path / "adapter_config.json").read_text())
    keys = {name: f"base_model.model.{name}.lora_" for name in names}
    return config, {
        name: (tensors[f"{key}A.weight"], tensors[f"{key}B.weight"]) for name, key in keys.items()
    }


def added(tensors, pairs, scale=2.0):
    """The tensors with scale B A added."""
    sums = {
        f"{module}.weight": tensors[f"{module}.weight"] + np.float64(scale) * np.float64(b) @ a
        for module, (a, b) in pairs.items()
    }
    return {**tensors, **{key: np.float32(total) for key, total in sums.items()}}


def batch(ids):
    """Ids [B, T] as a causal batch, of any model."""
    ids = np.asarray(ids, np.int32)
    slots = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int32), ids.shape)
    names = ("targets", "block_positions", "attend_start")
    fields = {"tokens": ids, "positions": slots, "attend_end": slots + 1}
    return {**fields, **dict.fromkeys(names, 0 * ids), "loss_weights": np.ones(ids.shape, "f4")}


IDS = np.random.default_rng(1).integers(3, 60, (2, 9))


def logits(model, ids=IDS):
    return np.asarray(model.logits(batch(ids)))
