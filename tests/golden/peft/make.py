"""Makes the directories beside it: LoRAs that PEFT trained and saved, and logits with each.

python tests/golden/peft/make.py        in an environment with torch, transformers and peft
"""

import functools
import shutil
from pathlib import Path

import numpy as np
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model

HERE = Path(__file__).parent
MODELS = HERE.parent / "chatglm"
COMMON = {"task_type": "CAUSAL_LM", "r": 4, "lora_alpha": 8}
CASES = {
    "glm4_9b_qkv": ("Glm", {"target_modules": ["q_proj", "k_proj", "v_proj"]}),
    "glm4_9b_all_linear_rslora": (
        "Glm",
        {
            "target_modules": "all-linear",
            "use_rslora": True,
            "rank_pattern": {"down_proj": 2, "model.layers.1.self_attn.q_proj": 3},
            "alpha_pattern": {"o_proj": 5},
        },
    ),
    "glm4_0414_last_layer": (
        "Glm4",
        {"target_modules": ["gate_up_proj", "o_proj", "v_proj"], "layers_to_transform": [1]},
    ),
}
STEPS, RATE = 5, 1.0


def main():
    ids = torch.from_numpy(np.random.default_rng(11).integers(3, 300, (2, 12)))
    for name, (family, values) in CASES.items():
        torch.manual_seed(5)
        base = MODELS / ("glm4_9b" if family == "Glm" else "glm4_0414")
        kind = getattr(transformers, f"{family}ForCausalLM")
        load = functools.partial(
            kind.from_pretrained, base, attn_implementation="eager", dtype=torch.float32
        )
        model = get_peft_model(load(), LoraConfig(**COMMON, **values))
        trained = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(trained, RATE)
        for _ in range(STEPS):
            loss = model(ids, labels=ids).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        shutil.rmtree(HERE / name, ignore_errors=True)
        model.peft_config["default"].base_model_name_or_path = base.name
        model.save_pretrained(HERE / name)
        (HERE / name / "README.md").unlink()
        again = PeftModel.from_pretrained(load(), HERE / name).eval()
        with torch.no_grad():
            logits, bare = again(ids).logits.numpy(), load().eval()(ids).logits.numpy()
        print(name, "loss", float(loss), "logits moved by", np.abs(logits - bare).max())
        np.savez_compressed(HERE / name / "logits.npz", ids=ids.numpy(), logits=logits[..., ::4])


if __name__ == "__main__":
    main()
