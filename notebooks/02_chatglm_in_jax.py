# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # ChatGLM in JAX
#
# ChatGLM2, ChatGLM3, GLM-4 and GLM-4-0414 are one family: decoder layers with rotary positions,
# grouped keys and values, RMSNorm and SwiGLU. glm_jax runs them all with one `Transformer`, reads
# their published directories and writes what transformers loads.
#
# No published checkpoint is needed here: we make a ChatGLM2 directory of our own, with random
# numbers and the file layout of the real one, and do with it what one does with the real one.
#
# It runs on any accelerator, or on none. In Colab, install the package into the runtime first:
# `!pip install` with the address of its repository.

# %%
import json
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

import glm_jax

folder = Path(tempfile.mkdtemp())

# %% [markdown]
# ## A directory as published
#
# `config.json` has ChatGLM2's own keys. ChatGLM2-6B has 28 layers of width 4096 with 32 heads that
# share 2 heads of keys and values; ours has 2 layers of width 64 with 4 heads that share 2.

# %%
config = {
    "model_type": "chatglm",
    "architectures": ["ChatGLMModel"],
    "num_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "kv_channels": 16,
    "multi_query_attention": True,
    "multi_query_group_num": 2,
    "ffn_hidden_size": 112,
    "padded_vocab_size": 320,
    "seq_length": 512,
    "layernorm_epsilon": 1e-5,
    "rmsnorm": True,
    "post_layer_norm": True,
    "add_bias_linear": False,
    "add_qkv_bias": True,
    "tie_word_embeddings": False,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}
random = np.random.default_rng(0)


def matrix(*shape):
    return (random.normal(size=shape) / np.sqrt(shape[-1])).astype(np.float32)


def around_one(size):
    return (1 + 0.1 * random.normal(size=size)).astype(np.float32)


weights = {
    "transformer.embedding.word_embeddings.weight": matrix(320, 64),
    "transformer.encoder.final_layernorm.weight": around_one(64),
    "transformer.output_layer.weight": matrix(320, 64),
}
for i in range(2):
    layer = f"transformer.encoder.layers.{i}."
    weights |= {
        layer + "input_layernorm.weight": around_one(64),
        # 4 query heads, then 2 key heads, then 2 value heads, of 16 rows each.
        layer + "self_attention.query_key_value.weight": matrix((4 + 2 + 2) * 16, 64),
        layer + "self_attention.query_key_value.bias": 0.1 * matrix(128),
        layer + "self_attention.dense.weight": matrix(64, 64),
        layer + "post_attention_layernorm.weight": around_one(64),
        # The gate's rows first, then those it is multiplied with.
        layer + "mlp.dense_h_to_4h.weight": matrix(2 * 112, 64),
        layer + "mlp.dense_4h_to_h.weight": matrix(64, 112),
    }

published = folder / "chatglm2-tiny"
published.mkdir()
(published / "config.json").write_text(json.dumps(config))
save_file(weights, published / "model.safetensors")

# %% [markdown]
# ## Load it
#
# One call, for this and for the real ones. The keys of `config.json` and the names of the tensors
# tell which family it is, and whether the names are the original ones or those of transformers.

# %%
lm = glm_jax.load(published)
lm.config

# %% [markdown]
# ## The same numbers?
#
# Here is the whole model once more, in NumPy, to read and to compare with.

# %%


def rms_norm(x, weight):
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + 1e-5) * weight


def rotate(x):
    """x [T, heads, 16]: neighbours (0, 1), (2, 3), .. of the first 8 turn by position * speed."""
    speed = 10000.0 ** (-np.arange(0, 8, 2) / 8)
    angle = np.arange(len(x))[:, None, None] * speed
    first, second = x[..., 0:8:2], x[..., 1:8:2]
    turned = np.stack(
        [
            first * np.cos(angle) - second * np.sin(angle),
            second * np.cos(angle) + first * np.sin(angle),
        ],
        axis=-1,
    )
    return np.concatenate([turned.reshape(*x.shape[:-1], 8), x[..., 8:]], axis=-1)


def attend(x, w, name):
    qkv = x @ w[name + "query_key_value.weight"].T + w[name + "query_key_value.bias"]
    q, k, v = (part.reshape(len(x), -1, 16) for part in np.split(qkv, [64, 96], axis=-1))
    # Two query heads for each key head.
    q, k, v = rotate(q), rotate(k).repeat(2, axis=1), v.repeat(2, axis=1)
    scores = np.einsum("inh,jnh->nij", q, k) / np.sqrt(16)
    scores = np.where(np.tri(len(x), dtype=bool), scores, -np.inf)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    y = np.einsum("nij,jnh->inh", shares, v).reshape(len(x), 64)
    return y @ w[name + "dense.weight"].T


def feed_forward(x, w, name):
    gate, up = np.split(x @ w[name + "dense_h_to_4h.weight"].T, 2, axis=-1)
    return (gate / (1 + np.exp(-gate)) * up) @ w[name + "dense_4h_to_h.weight"].T


def chatglm2(tokens, w):
    x = w["transformer.embedding.word_embeddings.weight"][tokens].astype(np.float64)
    for i in range(2):
        layer = f"transformer.encoder.layers.{i}."
        x = x + attend(
            rms_norm(x, w[layer + "input_layernorm.weight"]), w, layer + "self_attention."
        )
        x = x + feed_forward(
            rms_norm(x, w[layer + "post_attention_layernorm.weight"]), w, layer + "mlp."
        )
    x = rms_norm(x, w["transformer.encoder.final_layernorm.weight"])
    return x @ w["transformer.output_layer.weight"].T


# %% [markdown]
# A `Batch` carries its own mask: token i sees the keys from `attend_start[i]` up to, not including,
# `attend_end[i]`. Causal is the case without a prefix; `prefix_bounds(3, 10)` would let the first
# three see each other, as GLM does.

# %%
tokens = random.integers(0, 320, 10).astype(np.int32)
start, end = glm_jax.prefix_bounds(0, 10)
batch = {
    "tokens": tokens[None],
    "positions": np.arange(10, dtype=np.int32)[None],
    "block_positions": np.zeros((1, 10), np.int32),
    "attend_start": start[None],
    "attend_end": end[None],
    "targets": np.roll(tokens, -1)[None],
    "loss_weights": np.ones((1, 10), np.float32),
}
difference = np.abs(np.asarray(lm.logits(batch)[0]) - chatglm2(tokens, weights)).max()
assert difference < 1e-4, difference
print(f"largest difference of {lm.logits(batch).size} scores: {difference:.1e}")

# %% [markdown]
# ## Generate
#
# Prompts of different lengths run side by side, and give what each would give alone.

# %%
prompts = [[5, 17, 200], [5, 17, 200, 31, 8, 9, 60], [300]]
together = lm.generate(prompts, max_new_tokens=12)
alone = [lm.generate([prompt], max_new_tokens=12)[0] for prompt in prompts]
assert together == alone
together

# %% [markdown]
# ## Chat
#
# The real directory has a vocabulary beside its weights, `tokenizer.model` of sentencepiece. Here
# is one for ours, with a byte for whatever it does not know. ChatGLM2's five special tokens have
# the ids behind its pieces, so no text spells them.

# %%
import sentencepiece

sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(["[Round 1]", "问：你好", "答：你好！", "hello, how are you?"] * 9),
    model_prefix=str(published / "tokenizer"),
    model_type="bpe",
    vocab_size=315,
    byte_fallback=True,
    character_coverage=1.0,
    normalization_rule_name="identity",
    remove_extra_whitespaces=False,
    hard_vocab_limit=False,
    minloglevel=2,
)
(published / "glm_tokenizer.json").write_text('{"kind": "chatglm2"}')

lm = glm_jax.load(published)
messages = [{"role": "user", "content": "你好"}]
print(lm.tokenizer.apply_chat_template(messages, tokenize=False))
print(lm.tokenizer.apply_chat_template(messages))

# %% [markdown]
# `lm.chat` answers messages; with random numbers for weights it answers nonsense
# (`docs/chat.md` shows a model that was trained). A `Conversation` keeps the cache from turn to
# turn: the next prompt is the whole history again, and only what is new of it is computed. The
# answer is that of a fresh prompt.

# %%
talk = glm_jax.Conversation(lm, max_new_tokens=8)
for message in ("你好", "how are you?"):
    answer = talk.say(message)
    print(len(answer.ids), "new ids;", talk.cached, "tokens in the cache")
assert lm.chat(talk.messages[:-1], max_new_tokens=8) == answer.message

# %% [markdown]
# In a terminal: `python -m glm_jax.chat --checkpoint DIR`.

# %% [markdown]
# ## In four bits
#
# `quantize="int4"` rounds each matrix of the layers while it is read: integers from -7 to 7, and
# one scale per output. It is the published INT4 format, so a directory that is published so loads
# alike, and `save` writes two integers in a byte, the even column in the high half.

# %%
packed = glm_jax.load(published, quantize="int4")
packed.save(folder / "int4")
about = json.loads((folder / "int4" / "config.json").read_text())
stored = load_file(folder / "int4" / "model.safetensors")
name = "transformer.encoder.layers.0.mlp.dense_4h_to_h.weight"
print(f"quantization_bit {about['quantization_bit']}; [64, 112] is now {stored[name].shape}")

byte = stored[name][0, 0]
scale = np.float32(stored[f"{name}_scale"][0])
print("two columns as they were:", weights[name][0, :2])
print("as they are now:         ", np.array([byte >> 4, (byte << 4).astype(np.int8) >> 4]) * scale)
difference = np.abs(np.asarray(packed.logits(batch) - lm.logits(batch)))
print(f"scores differ by {difference.mean():.3f} on average, of {np.std(lm.logits(batch)):.3f}")

# %% [markdown]
# With random weights that is as bad as it gets. Of a trained model it costs a few per cent of the
# perplexity, and less with `glm_jax.Quantize(4, group_size=128, search=True)`
# (`docs/checkpoints.md` has the figures, `examples/quantize.py` measures your own).

# %% [markdown]
# ## Save it under the names of transformers
#
# `names="native"` writes a directory that `transformers.AutoModelForCausalLM` loads as a Glm model,
# with no code from the model's own repository.

# %%
lm.save(folder / "native", names="native")
native = json.loads((folder / "native" / "config.json").read_text())
print({key: native[key] for key in ("model_type", "num_hidden_layers", "num_key_value_heads")})

again = glm_jax.load(folder / "native")
np.testing.assert_array_equal(again.logits(batch), lm.logits(batch))
print("loaded again: the same scores to the last bit")

# %% [markdown]
# And with transformers itself, where it is installed:

# %%
try:
    import torch
    from transformers import AutoModelForCausalLM
except ImportError:
    print("transformers is not installed here; pip install -e '.[interop]' in the checkout")
else:
    model = AutoModelForCausalLM.from_pretrained(folder / "native")
    with torch.no_grad():
        theirs = model(torch.tensor(tokens[None].astype(np.int64))).logits.numpy()
    print("largest difference:", np.abs(theirs - np.asarray(lm.logits(batch))).max())

# %% [markdown]
# The same from the command line: `python -m glm_jax.convert SRC DST --names native`.
