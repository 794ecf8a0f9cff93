"""The losses of alignment and their gradients, here and in TRL's trainers, over the same rows."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

import glm_jax
from glm_jax.batch import RolloutBatch, ScoredBatch
from glm_jax.config import Config, DataConfig, ExamplesConfig, ModelConfig, TrainConfig
from glm_jax.config.policy import PolicyConfig
from glm_jax.config.preferences import PreferencesConfig
from glm_jax.config.rollouts import RolloutsConfig
from glm_jax.generation.language_model import LanguageModel
from glm_jax.losses.registry import loss_of
from glm_jax.models.params import bind
from glm_jax.sharding.mesh import make_mesh
from tests.interop.lora_directories import GOLDEN
from tests.segment_rows import rows_of

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")
tokenizers = pytest.importorskip("tokenizers")

BASE = GOLDEN / "chatglm" / "glm4_9b"
T = 32
# The checkpoint says the rest; with dropout the losses were refused.
MODEL = ModelConfig(dropout_rate=0.0, attention_dropout_rate=0.0)
WORDS = [f"w{number}" for number in range(60)]
PAIRS = [
    {"prompt": "w3 w4 w5", "chosen": " w6 w7 w8", "rejected": " w9"},
    {"prompt": "w10 w11", "chosen": " w12", "rejected": " w13 w14 w15 w16"},
    {"prompt": "w20", "chosen": " w21 w22", "rejected": " w23 w24"},
]


@pytest.fixture(scope="module")
def tokenizer():
    """One id a word, from 5; padding is 0 and the end 1."""
    ids = {"[pad]": 0, "[end]": 1, "[unk]": 2} | {word: 5 + n for n, word in enumerate(WORDS)}
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[unk]"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="[pad]", eos_token="[end]", unk_token="[unk]"
    )


def their_model(kind="GlmForCausalLM", **values):
    torch.manual_seed(0)
    kind = getattr(transformers, kind)
    return kind.from_pretrained(BASE, attn_implementation="eager", dtype=torch.float32, **values)


def arguments(kind, path, **values):
    return kind(
        output_dir=str(path),
        use_cpu=True,
        report_to=[],
        bf16=False,
        **values,
    )


def our_loss(config, batch, path, value_head=None):
    """The loss, its gradients by the tensors' published names, and that of a value head."""
    lm = glm_jax.load(BASE)
    shape, params = lm.config, dict(lm.params)
    if value_head is not None:
        shape = dataclasses.replace(shape, value_head=True)
        params["value_head"] = {"vector": jnp.asarray(value_head)}
    mesh, loss = make_mesh(config.mesh, jax.devices()[:1]), loss_of(config)

    def of(params):
        weights = loss.coefficients(config.train, batch)
        return loss.sums(config.train, mesh, bind(shape, params), batch, weights, None)[0]

    value, gradient = jax.jit(jax.value_and_grad(of))(params)
    head = gradient.pop("value_head", {}).get("vector")
    # A gradient is laid out as its tensor is, so what writes tensors writes it.
    LanguageModel(lm.config, gradient, origin=lm._origin).save(path / "ours", names="native")
    return float(value), load_file(path / "ours" / "model.safetensors"), head


def check_equal(ours, their_loss, model):
    """The same loss, and the same gradients beside the largest, to 1e-5."""
    loss, gradients, _ = ours
    assert loss == pytest.approx(float(their_loss), rel=1e-5, abs=1e-5)
    their_loss.backward()
    theirs = {
        name.removeprefix("base_model."): one.grad.numpy() for name, one in model.named_parameters()
    }
    largest = max(np.abs(one).max() for one in theirs.values())
    assert largest > 1e-3
    shared = set(theirs) & set(gradients)
    assert len(shared) >= len(gradients) - 1
    for name in sorted(shared):
        np.testing.assert_allclose(
            gradients[name] / largest, theirs[name] / largest, atol=1e-5, err_msg=name
        )


def answers_of(inputs):
    """(ids without padding, where the answer begins), of TRL's rows."""
    ids, answer = inputs["input_ids"].numpy(), inputs["completion_mask"].numpy()
    there = inputs["attention_mask"].numpy() > 0
    return [
        (row[seen], int(np.argmax(learnt[seen] > 0)))
        for row, learnt, seen in zip(ids, answer, there, strict=True)
    ]


def log_probs(model, ids, answer, temperature=1.0):
    """[answer], by a model of transformers."""
    with torch.no_grad():
        logits = model(torch.from_numpy(ids)[None].long()).logits[0] / temperature
    found = torch.log_softmax(logits, -1).numpy()
    return found[np.arange(answer - 1, len(ids) - 1), ids[answer:]]


@pytest.mark.parametrize(
    ("theirs", "loss", "settings"),
    [
        ({"loss_type": "sigmoid", "beta": 0.3}, "dpo", {"beta": 0.3}),
        ({"loss_type": "hinge", "beta": 0.5}, "hinge", {"beta": 0.5}),
        ({"loss_type": "ipo", "beta": 0.1}, "ipo", {"beta": 0.1, "length_normalized": True}),
    ],
)
def test_pairs(theirs, loss, settings, tokenizer, tmp_path):
    model, reference = their_model(), their_model()
    with torch.no_grad():
        # Another model than the policy, or each log-ratio were 0.
        reference.lm_head.weight.add_(0.3 * torch.randn_like(reference.lm_head.weight))
    trainer = trl.DPOTrainer(
        model=model,
        ref_model=reference,
        args=arguments(
            trl.DPOConfig, tmp_path / "trl", per_device_train_batch_size=3, max_length=T, **theirs
        ),
        processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(PAIRS),
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    their_loss = trainer.compute_loss(model, inputs)
    texts = answers_of(inputs)
    rows = [list(pair) for pair in zip(texts[:3], texts[3:], strict=True)]
    scores = [[log_probs(reference, *one) for one in row] for row in rows]
    config = Config(
        model=MODEL,
        data=DataConfig(source="none", sequence_length=T, batch_size=3),
        examples=ExamplesConfig(format="preferences"),
        train=TrainConfig(loss=loss, num_steps=1),
        preferences=PreferencesConfig(**settings),
    )
    check_equal(
        our_loss(config, rows_of(rows, T, ScoredBatch, reference=scores), tmp_path),
        their_loss,
        model,
    )


@pytest.mark.parametrize("margins", [None, [0.5, 0.0, 2.0]])
def test_a_reward_model(margins, tokenizer, tmp_path):
    """TRL reads the column "margin" of a pair."""
    pairs = PAIRS
    if margins is not None:
        pairs = [{**pair, "margin": by} for pair, by in zip(PAIRS, margins, strict=True)]
    model = their_model("GlmForSequenceClassification", num_labels=1)
    model.config.pad_token_id = tokenizer.pad_token_id
    trainer = trl.RewardTrainer(
        model=model,
        args=arguments(
            trl.RewardConfig, tmp_path / "trl", per_device_train_batch_size=3, max_length=T
        ),
        processing_class=tokenizer,
        train_dataset=datasets.Dataset.from_list(pairs),
    )
    inputs = next(iter(trainer.get_train_dataloader()))
    ids, there = inputs["input_ids"].numpy(), inputs["attention_mask"].numpy() > 0
    texts = [row[seen] for row, seen in zip(ids, there, strict=True)]
    their_loss = trainer.compute_loss(model, inputs)
    # Their reward is read where the last id is input, ours where it is predicted, a slot earlier;
    # one more id makes the two the same.
    texts = [np.append(text, 0) for text in texts]
    rows = [
        [(one, len(one) - 1), (two, len(two) - 1)]
        for one, two in zip(texts[:3], texts[3:], strict=True)
    ]
    config = Config(
        model=dataclasses.replace(MODEL, value_head=True),
        data=DataConfig(source="none", sequence_length=T, batch_size=3),
        examples=ExamplesConfig(format="preferences"),
        train=TrainConfig(loss="reward", num_steps=1),
    )
    fields = {}
    if margins is not None:
        fields["margins"] = [[float(by), 0.0] for by in inputs["margin"]]
    head = model.score.weight.detach().numpy()[0]
    ours = our_loss(config, rows_of(rows, T, ScoredBatch, **fields), tmp_path, head)
    check_equal(ours, their_loss, model)
    np.testing.assert_allclose(ours[2], model.score.weight.grad.numpy()[0], atol=1e-5)


@pytest.mark.parametrize(
    ("theirs", "settings"),
    [
        ({"loss_type": "grpo"}, {"loss_per": "sequence"}),
        ({"loss_type": "bnpo", "beta": 0.2}, {"kl_beta": 0.2, "kl_by_ratio": True}),
        (
            {"loss_type": "bnpo", "beta": 0.2, "use_bias_correction_kl": False},
            {"kl_beta": 0.2},
        ),
        (
            {"loss_type": "dr_grpo", "epsilon_high": 0.28, "temperature": 0.7},
            {"loss_per": "longest", "clip_high": 0.28},
        ),
        ({"loss_type": "bnpo", "entropy_coef": 0.1}, {"entropy_bonus": 0.1}),
    ],
)
def test_rollouts(theirs, settings, tokenizer, tmp_path):
    model, temperature = their_model(), theirs.get("temperature", 1.0)
    trainer = trl.GRPOTrainer(
        model=model,
        args=arguments(
            trl.GRPOConfig,
            tmp_path / "trl",
            per_device_train_batch_size=4,
            num_generations=2,
            max_completion_length=6,
            **theirs,
        ),
        processing_class=tokenizer,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=datasets.Dataset.from_list([{"prompt": "w3 w4"}] * 4),
    )
    prompts = [[8, 9, 10], [11, 12], [8, 9, 10], [13]]
    answers = [[20, 21, 22, 1], [23, 1], [24, 25, 26, 27, 28, 1], [29, 30, 1]]
    better = np.float32([1.2, -0.7, 0.4, -1.5])
    texts = [
        (np.array([*prompt, *answer]), len(prompt))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    draws = np.random.default_rng(0)
    # Some ratios beyond the clip on either side, and a reference that is another model.
    now = [log_probs(model, *text, temperature) for text in texts]
    old = [one + draws.normal(0, 0.3, len(one)).astype(np.float32) for one in now]
    reference = [one + draws.normal(0, 0.3, len(one)).astype(np.float32) for one in now]

    def padded(rows, left=False, dtype=torch.long):
        size = max(map(len, rows))
        empty = [[0] * (size - len(row)) for row in rows]
        both = [[*e, *row] if left else [*row, *e] for e, row in zip(empty, rows, strict=True)]
        return torch.tensor(np.array(both), dtype=dtype)

    def ones(rows):
        return [[1] * len(row) for row in rows]

    inputs = {
        "prompt_ids": padded(prompts, left=True),
        "prompt_mask": padded(ones(prompts), left=True),
        "completion_ids": padded(answers),
        "completion_mask": padded(ones(answers)),
        "advantages": torch.from_numpy(better),
        "old_per_token_logps": padded(old, dtype=torch.float32),
        "ref_per_token_logps": padded(reference, dtype=torch.float32),
        "num_items_in_batch": torch.tensor(15),
    }
    trainer.current_gradient_accumulation_steps = 1
    their_loss = trainer._compute_loss(model, inputs)
    fields = {
        "old": [[one] for one in old],
        "reference": [[one] for one in reference],
        "advantages": [[np.full(len(one), a)] for one, a in zip(old, better, strict=True)],
    }
    batch = rows_of([[text] for text in texts], T, RolloutBatch, **fields)
    config = Config(
        model=MODEL,
        data=DataConfig(source="none", sequence_length=T, batch_size=4),
        examples=ExamplesConfig(format="prompts"),
        train=TrainConfig(loss="grpo", num_steps=1),
        rollouts=RolloutsConfig(
            group_size=2, max_new_tokens=6, reward="a.py:f", temperature=temperature
        ),
        policy=PolicyConfig(**settings),
    )
    check_equal(our_loss(config, batch, tmp_path), their_loss, model)
