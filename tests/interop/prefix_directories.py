"""The golden prefixes as directories that others write, and the batches that they were scored on.

The copies in tests/golden hold the logits of every fourth id.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from tests.models.golden_batches import masked_batch, padded_batch

GOLDEN = Path(__file__).parents[1] / "golden" / "chatglm"
MODELS = ("chatglm1", "chatglm2", "chatglm3")
ENCODER = "transformer.prefix_encoder."


def vectors_of(name):
    return np.load(GOLDEN / name / "ptuning.npz")


def batch_of_model(name):
    """The golden batch, and which slots are real."""
    make = masked_batch if name == "chatglm1" else padded_batch
    return make(np.load(GOLDEN / name / "vectors.npz"))


def encoder(name, form, what="param", key=ENCODER):
    """The parameters of an encoder, or their gradients ("grad"), by the names of a checkpoint."""
    start, vectors = f"{form}_{what}.", vectors_of(name)
    return {key + k.removeprefix(start): vectors[k] for k in vectors if k.startswith(start)}


def write_ptuning(path, name, form, tensors=None, **values):
    """As the Trainer of the published code leaves it; a value of None leaves a key out."""
    tensors = encoder(name, form) if tensors is None else tensors
    config = json.loads((GOLDEN / name / "config.json").read_text())
    config |= {"pre_seq_len": 3 if name == "chatglm3" else 4, "prefix_projection": form == "proj"}
    config = {k: v for k, v in {**config, **values}.items() if v is not None}
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    save_file(tensors, path / "model.safetensors")
    return path


def write_peft(path, name, **values):
    """The plain table of a golden prefix as PEFT writes it."""
    (table,) = encoder(name, "emb").values()
    config = {"peft_type": "PREFIX_TUNING", "task_type": "CAUSAL_LM"}
    path.mkdir()
    text = json.dumps({**config, "num_virtual_tokens": len(table), **values})
    (path / "adapter_config.json").write_text(text)
    save_file({"prompt_embeddings": table}, path / "adapter_model.safetensors")
    return path
