# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Quickstart: train a GLM, fill blanks with it, save it, go on
#
# A very small GLM, a few steps, on the text that the package brings along: enough to see every part
# work, not enough to learn English. `configs/tiny_cpu.py` (5 minutes) and `configs/small_cpu.py`
# (an hour) are the same with more of everything.
#
# *Run time*: about a minute on two cores with the package installed. In Colab the next cell
# installs it first, with pinned versions (allow two minutes; start the runtime anew if asked to).

# %%
import sys

if "google.colab" in sys.modules:  # the pinned versions are those of constraints.txt, Python 3.12
    import subprocess

    pinned = ["jax==0.12.0.1", "flax==0.12.12", "optax==0.2.8", "orbax-checkpoint==0.12.8"]
    pinned += ["sentencepiece==0.2.3", "safetensors==0.8.0", "numpy==2.5.5"]
    address = input("address of the glm_jax repository: ")
    command = [sys.executable, "-m", "pip", "install", "-q", *pinned, f"git+{address}"]
    subprocess.run(command, check=True)

# %%
import json
import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import glm_jax

# %% [markdown]
# ## A run is one file
#
# It says everything: the model, the data, what is cut out of it, the optimizer, the loop. Whatever
# is left out has a default, and `--set` changes single values.

# %%
Path("quickstart.py").write_text(
    """
from glm_jax.config import (
    Config, DataConfig, ModelConfig, ObjectiveConfig, OptimizerConfig, TrainConfig
)


def get_config():
    return Config(
        model=ModelConfig(
            vocab_size=7168, num_layers=2, embed_dim=64, num_heads=2, max_positions=64,
            dropout_rate=0.0, attention_dropout_rate=0.0,
        ),
        data=DataConfig(
            source="bundled", sequence_length=64, batch_size=16, store="runs/store"
        ),
        objective=ObjectiveConfig(span_rate=0.5, sentence_rate=0.2, document_rate=0.3),
        optimizer=OptimizerConfig(peak_learning_rate=1e-2, warmup_steps=5, decay_steps=60),
        train=TrainConfig(
            num_steps=40, log_every=5, eval_every=20, eval_batches=2, checkpoint_every=20,
            sample_every=1000,
        ),
    )
"""
)


def train(*options):
    """What one types in a terminal: python -m glm_jax.train --config ... --workdir ..."""
    command = ["-m", "glm_jax.train", "--config", "quickstart.py", "--workdir", "runs/quickstart"]
    done = subprocess.run(
        [sys.executable, *command, *options], stdout=subprocess.PIPE, check=True, text=True
    )
    print(done.stdout)


# %% [markdown]
# ## Train
#
# The text is tokenised once, into `runs/store`. The lines say what the model is, what it needs, and
# how the loss on held-out text compares with `unigram`, the loss of knowing only how frequent each
# token is.

# %%
train()

# %% [markdown]
# ## The loss
#
# `metrics.jsonl` in the run's directory has one object a line.

# %%


def losses():
    lines = Path("runs/quickstart/metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {row["step"]: row["loss"] for row in rows if "loss" in row}


found = losses()
plt.figure(figsize=(6, 3))
plt.plot(list(found), list(found.values()), "o-")
plt.xlabel("step")
plt.ylabel("loss (nats a token)")
plt.show()
steps = sorted(found)
assert found[steps[-1]] < found[steps[0]] - 0.5
print(f"from {found[steps[0]]:.2f} to {found[steps[-1]]:.2f}; a guess among 7168 costs 8.88")

# %% [markdown]
# ## Fill blanks
#
# `[MASK]` stands for some words, `[sMASK]` for a sentence, `[gMASK]` for a long stretch. Blanks are
# filled from left to right, and later ones see the answers before them. After so few steps the
# model knows little more than that spans end soon, so we ask for three tokens at least.

# %%
lm = glm_jax.load("runs/quickstart")
prompt = "[CLS]In the beginning, God [MASK] the heavens and [MASK].<|endoftext|>"
ids = lm.tokenizer.encode(prompt, allow_special=True)
for answer in lm.fill_blanks(ids, max_new_tokens=8, min_new_tokens=3):
    print(repr(lm.tokenizer.decode(answer)))

# %% [markdown]
# More ways: draw instead of taking the best (`temperature`, `top_k`, `top_p`), search with several
# beams, forbid short answers or repeated words, several texts at once.

# %%
searched = {"num_beams": 3, "no_repeat_ngram": 1, "min_new_tokens": 3}
for options in ({"temperature": 0.8, "seed": 1}, searched):
    answers = lm.fill_blanks(ids, max_new_tokens=8, **options)
    print(options, [lm.tokenizer.decode(answer) for answer in answers])

# %% [markdown]
# Or ask how likely given answers are. What ends the answer is a token of its own.

# %%
end = lm.special.end
words = ["created", "the light"]
candidates = [[*lm.tokenizer.encode(word), end] for word in words]
one_blank = lm.tokenizer.encode("[CLS]God [MASK] the heavens.<|endoftext|>", allow_special=True)
print(dict(zip(words, lm.score(one_blank, candidates), strict=True)))

# %% [markdown]
# ## Save and load
#
# A Hugging Face directory: `config.json` and `model.safetensors`, the tokenizer beside them.

# %%
lm.save("runs/exported")
print(sorted(path.name for path in Path("runs/exported").iterdir()))

again = glm_jax.load("runs/exported")
config = glm_jax.load_config("quickstart.py")
batch = next(glm_jax.batches(config, split="eval"))
np.testing.assert_array_equal(again.logits(batch), lm.logits(batch))
print("loaded again: the same scores to the last bit")

# %% [markdown]
# ## Go on
#
# The same command goes on where a run stopped, or was killed, to the same result bit for bit. Here
# it had ended; with more steps it goes on from its last checkpoint.

# %%
train("--set", "train.num_steps=60")
assert max(losses()) == 60
