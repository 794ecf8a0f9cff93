"""Trains a small causal model, with ChatGLM2's layers, and lets it continue texts.

    python examples/generate.py [--steps 120]

It prints (shortened)

    step 1: loss 8.902
    step 120: loss 5.129
    {}: And the king said to the son of the son of the son of the son of the son of the
    {'temperature': 0.8, 'top_p': 0.9, 'seed': 0}: And the king said to he had not great certain ...
    {'temperature': 0.8, 'top_p': 0.9, 'seed': 1}: And the king said to a matter of the pillar. ...
    {'temperature': 0.8, 'top_p': 0.9, 'seed': 0}: And the king said to he had not great certain ...
    [268, 389, 277, 268, 389, 277, 268, 389] the son of the son of the son
    [4846, 279, 268, 389, 277, 268, 389, 277] , and the son of the son of
"""

import argparse
from pathlib import Path

import jax

import glm_jax
from glm_jax.generation.options import Options
from glm_jax.sharding.mesh import batch_sharding, make_mesh
from glm_jax.training.state import create_state
from glm_jax.training.step import make_train_step

CONFIG = Path(__file__).parents[1] / "configs" / "tiny_chatglm_cpu.py"


def train(num_steps: int) -> glm_jax.LanguageModel:
    """A model after so many steps on the bundled English text."""
    # A config file, made smaller by the overrides that commands take as --set.
    overrides = [
        f"train.num_steps={num_steps}",
        f"optimizer.warmup_steps={min(20, num_steps // 4)}",
        "data.source=bundled:en",
        "data.sequence_length=128",
        "model.num_layers=2",
    ]
    config = glm_jax.load_config(CONFIG, overrides)
    stream = glm_jax.batches(config)
    mesh = make_mesh(config.mesh)
    state = create_state(config, mesh)
    train_step = make_train_step(config, mesh)
    for step in range(1, num_steps + 1):
        batch = jax.device_put(next(stream), batch_sharding(mesh))
        state, metrics = train_step(state, batch)
        if step == 1 or step % 40 == 0:
            print(f"step {step}: loss {float(metrics['loss']):.3f}")
    tokenizer = glm_jax.load_tokenizer(config.data.tokenizer)
    return glm_jax.LanguageModel(config.resolved_model, state.params, tokenizer)


def continue_texts(lm: glm_jax.LanguageModel) -> tuple[list[str], list[list[int]]]:
    """Returns what followed the text: as text, in four ways, and as ids."""
    text = "And the king said to"
    # Greedy decoding, which repeats itself; then sampling. The same seed gives the same text.
    sampled: Options = {"temperature": 0.8, "top_p": 0.9}
    ways: list[Options] = [
        {},
        {**sampled, "seed": 0},
        {**sampled, "seed": 1},
        {**sampled, "seed": 0},
    ]
    texts = [lm.complete(text, max_new_tokens=16, **options) for options in ways]
    for options, new in zip(ways, texts, strict=True):
        print(f"{options}: {text}{new}")

    # Nothing is added to prompts of ids, so they begin with the special tokens that each text began
    # with in training. Prompts of different lengths are continued in one batch.
    tokenizer = lm.tokenizer
    assert tokenizer is not None  # `train` gave it
    start = [tokenizer.special.gmask, tokenizer.special.start]
    prompts = [[*start, *tokenizer.encode(one)] for one in (text, "In those days")]
    ids = lm.generate(prompts, max_new_tokens=8)  # new ids only
    for new_ids in ids:
        print(new_ids, tokenizer.decode(new_ids))
    return texts, ids


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Trains a causal model and continues texts.")
    parser.add_argument("--steps", type=int, default=120)
    args = parser.parse_args(argv)
    continue_texts(train(args.steps))


if __name__ == "__main__":
    main()
