# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Blank infilling, explained
#
# GLM ([arXiv:2103.10360](https://arxiv.org/abs/2103.10360)) learns by filling blanks. Spans are cut
# out of a text; what is left is **part A**, which sees itself in both directions; the spans are
# **part B**, written from left to right while seeing all of part A.
#
# This notebook shows that as arrays. It needs no accelerator and no model.
#
# *Run time*: about 15 seconds with the package installed. In Colab the next cell installs it first,
# with pinned versions (allow two minutes; start the runtime anew if Colab asks for it).

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
import math
import tempfile

import matplotlib.pyplot as plt
import numpy as np

import glm_jax
from glm_jax.config import Config, DataConfig, ModelConfig, ObjectiveConfig
from glm_jax.corruption import assemble
from glm_jax.data.picture import draw_mask, row_of, segments, show, spell

# %% [markdown]
# ## The paper's example
#
# The text is `x1 x2 x3 x4 x5 x6`. The spans `x3` and `x5 x6` are cut out, and drawn to be written
# in the order *second, first*. Ids stand for the tokens: 1 to 6 for x1 to x6, and three special
# ones.

# %%
M, S, E = 7, 8, 9  # [MASK], start of a span, end of a span
names = ["", "x1", "x2", "x3", "x4", "x5", "x6", "[M]", "S", "E"]
example = assemble(
    [1, 2, 3, 4, 5, 6], spans=[(2, 3), (4, 6)], order=[1, 0], mask_id=M, start_id=S, end_id=E
)
predicted = example["loss_weights"] > 0


def line(name, values):
    print(f"{name:<16}" + "".join(f"{value!s:>4}" for value in values))


line("tokens", [names[i] for i in example["tokens"]])
line(
    "targets",
    [names[i] if p else "." for i, p in zip(example["targets"], predicted, strict=True)],
)
line("positions", example["positions"])
line("block_positions", example["block_positions"])

# %% [markdown]
# Three things to see:
#
# * Part A is `x1 x2 [M] x4 [M]`: one mask a span, however long the span is. So the model is not
#   told the length, and must say itself when a span ends: the target behind `x6` is `E`.
# * Each token has **two positions**. The first is the place of its mask (4 for the span `x5 x6`, 2
#   for `x3`; the article counts from 1), the second counts inside the span, from 1 at the start
#   token.
# * A span's input is one step behind its target, as in every language model.

# %%
assert " ".join(names[i] for i in example["tokens"]) == "x1 x2 [M] x4 [M] S x5 x6 S x3"
assert example["positions"].tolist() == [0, 1, 2, 3, 4, 4, 4, 4, 2, 2]
assert example["block_positions"].tolist() == [0, 0, 0, 0, 0, 1, 2, 3, 1, 2]
print("these are the arrays of the article's figure 2")

# %% [markdown]
# ## Who sees whom
#
# No mask of T x T is ever made. Token i sees the keys from `attend_start[i]` up to, not including,
# `attend_end[i]`: two integers.

# %%
line("attend_start", example["attend_start"])
line("attend_end", example["attend_end"])
print()
print(draw_mask(example["attend_start"], example["attend_end"]))

# %% [markdown]
# Rows are queries, columns keys. The first five rows are part A: they see all of part A and nothing
# of part B. Each row of part B sees part A, the spans before it, and its own span up to itself.
#
# ## All generations, one rule
#
# `prefix_bounds(prefix, length)`: the first `prefix` tokens see each other, the others see what is
# before them.
#
# | | prefix |
# | --- | --- |
# | GLM (2021) | part A |
# | ChatGLM-6B | the prompt with its [gMASK], up to the start token |
# | ChatGLM2, ChatGLM3, GLM-4 | none: causal |
# | BERT, to compare | everything |
#
# And several texts **packed** into one row each begin at their own `attend_start`, so that none
# sees another. Padding behind them sees nothing and is seen by nothing.

# %%


def packed(lengths, total):
    """Texts of (prefix, length) side by side; what is left of the row is padding."""
    start, end = np.zeros((2, total), np.int32)
    at = 0
    for prefix, length in lengths:
        first, last = glm_jax.prefix_bounds(prefix, length)
        start[at : at + length], end[at : at + length] = first + at, last + at
        at += length
    return start, end


bounds = {
    "GLM: 5 of part A, 5 of part B": glm_jax.prefix_bounds(5, 10),
    "ChatGLM-6B: a prompt of 6": glm_jax.prefix_bounds(6, 10),
    "ChatGLM2/3, GLM-4": glm_jax.prefix_bounds(0, 10),
    "GLM, two texts packed": packed([(3, 5), (2, 3)], 10),
}
figure, axes = plt.subplots(1, 4, figsize=(13, 3.4))
for axis, (title, (start, end)) in zip(axes, bounds.items(), strict=True):
    keys = np.arange(10)
    axis.imshow((start[:, None] <= keys) & (keys < end[:, None]), cmap="Blues", vmin=0, vmax=1.4)
    axis.set_title(title, fontsize=9)
    axis.set_xticks(range(10))
    axis.set_yticks(range(10))
axes[0].set_ylabel("query")
figure.supxlabel("key", fontsize=9)
figure.tight_layout()
plt.show()

# %% [markdown]
# ## A real row
#
# The same from text: the bundled corpus, tokenised, cut into rows of 48 slots, spans drawn.

# %%
folder = tempfile.mkdtemp()
config = Config(
    model=ModelConfig(vocab_size=7168, max_positions=256),
    data=DataConfig(source="bundled", sequence_length=48, batch_size=4, store=folder + "/store"),
    objective=ObjectiveConfig(span_rate=1.0),
)
tokenizer = glm_jax.load_tokenizer("bundled")
stream = glm_jax.batches(config)
batch = next(stream)
print({name: (value.dtype.name, value.shape) for name, value in batch.to_dict().items()})

# %%
row = row_of(batch, 0)
print(spell(row, tokenizer.decode))
print()
print(show(row, lambda id_: tokenizer.decode([id_]), mask=False))

# %% [markdown]
# Beside it, the figure: which keys each place of that row sees, and the targets that count in the
# loss. Where several texts share the row, the squares do not touch.

# %%
keys = np.arange(48)
sees = (row.attend_start[:, None] <= keys) & (keys < row.attend_end[:, None])
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.2), width_ratios=[4, 1])
left.imshow(sees, cmap="Blues", vmin=0, vmax=1.4)
left.set(title="who sees whom in this row", xlabel="key", ylabel="query")
right.barh(keys, row.loss_weights, color="tab:red")
right.set(title="loss weight", ylim=(47.5, -0.5), xlim=(0, 1.2))
figure.tight_layout()
plt.show()

# %% [markdown]
# ## How long spans are
#
# Their lengths are drawn from a Poisson law with mean 3, without the length 0, until 15 % of the
# text are covered. We count the spans of real rows, of 256 slots now: in rows of 48 few spans fit,
# and the row's end would cut the long ones off.

# %%
config = Config(
    model=config.model,
    data=DataConfig(source="bundled", sequence_length=256, batch_size=64, store=folder + "/store"),
    objective=config.objective,
)
stream.close()
stream = glm_jax.batches(config)
lengths, covered, tokens = [], 0, 0
for _ in range(4):
    batch = next(stream)
    for index in range(64):
        for text in segments(row_of(batch, index)):
            # A span of n tokens takes n + 1 slots of part B; its mask is one slot of part A.
            here = [end - start - 1 for start, end in text.spans]
            lengths += here
            covered += sum(here)
            tokens += text.part_b - text.start - len(here) + sum(here)
stream.close()
print(f"{len(lengths)} spans, {covered / tokens:.1%} of the tokens covered")

# %%
longest = 10
weights = np.array([3.0**n / math.factorial(n) for n in range(1, 60)])
law = weights / weights.sum()
found = np.bincount(lengths, minlength=longest + 1)[1 : longest + 1] / len(lengths)
plt.figure(figsize=(6, 3))
plt.bar(np.arange(1, longest + 1), found, color="tab:blue", alpha=0.6, label="counted")
plt.plot(np.arange(1, longest + 1), law[:longest], "o-", color="tab:red", label="Poisson(3), n > 0")
plt.xlabel("length of a span")
plt.legend()
plt.show()
for n in range(1, 7):
    print(f"length {n}: counted {found[n - 1]:.3f}, the law says {law[n - 1]:.3f}")
assert np.abs(found - law[:longest]).max() < 0.02
mean = law @ np.arange(1, 60)
assert abs(np.mean(lengths) - mean) < 0.15
print(f"mean length {np.mean(lengths):.2f}, the law says {mean:.2f}")

# %% [markdown]
# That is all a model of the GLM family gets: ids, two positions, two bounds, and the targets. Whole
# sentences ([sMASK]) and long stretches ([gMASK]) are cut out by other rules
# (`ObjectiveConfig(sentence_rate=..., document_rate=...)`), but become the same arrays:
# `python -m glm_jax.preview --config FILE` shows rows of any config.
