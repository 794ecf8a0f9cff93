"""The same model here and in transformers: logits, gradients and greedy texts, both directions."""

import jax
import numpy as np
import pytest

import glm_jax
from glm_jax.batch import Batch
from glm_jax.errors import UserError
from glm_jax.losses.by_objective import objective_sums, summarize, token_losses
from glm_jax.models.params import bind
from glm_jax.models.trees import to_paths

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

LENGTH = 24
SIZES = {
    "vocab_size": 160,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "eos_token_id": [1, 2],
    "bos_token_id": None,
    "attn_implementation": "eager",
    "initializer_range": 0.08,
}
ROPE = {"rope_theta": 10000.0, "partial_rotary_factor": 0.5}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
CASES = {
    "glm": ("Glm", {"rope_parameters": {**ROPE, "rope_theta": 5e6}}),
    "glm-tied-multi-query": ("Glm", {"tie_word_embeddings": True, "num_key_value_heads": 1}),
    "glm-linear": ("Glm", {"rope_parameters": {**ROPE, "rope_type": "linear", "factor": 4.0}}),
    "glm4": ("Glm4", {"rms_norm_eps": 1e-5}),
    "glm4-yarn": ("Glm4", {"rope_parameters": {**ROPE, **YARN}}),
    "glm4-wide-heads-no-bias": ("Glm4", {"attention_bias": False, "head_dim": 16}),
}


@pytest.fixture(scope="module", params=CASES, ids=str)
def theirs(request):
    """A random model whose norms and biases are random too."""
    family, values = CASES[request.param]
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **values})
    torch.manual_seed(7)
    model = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or name.endswith("bias"):
                parameter += 0.2 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="module")
def ours(theirs, tmp_path_factory):
    directory = tmp_path_factory.mktemp("theirs")
    theirs.save_pretrained(directory)
    return glm_jax.load(directory)


def tokens():
    return np.random.default_rng(3).integers(3, 160, (2, LENGTH)).astype(np.int32)


def causal_batch():
    """Every id predicts the next one; the last predicts nothing."""
    ids = tokens()
    slot = np.broadcast_to(np.arange(LENGTH, dtype=np.int32), ids.shape)
    return Batch(
        tokens=ids,
        targets=np.roll(ids, -1, axis=1),
        loss_weights=(slot < LENGTH - 1).astype(np.float32),
        positions=slot,
        block_positions=np.zeros_like(ids),
        attend_start=np.zeros_like(ids),
        attend_end=slot + 1,
        objective=np.full_like(ids, 4),
    )


def their_logits(model):
    with torch.no_grad():
        return model(torch.tensor(tokens(), dtype=torch.long)).logits.numpy()


def test_logits_of_what_they_saved(theirs, ours):
    np.testing.assert_allclose(ours.logits(causal_batch()), their_logits(theirs), atol=1e-4, rtol=0)


def test_loss_and_gradients(theirs, ours, tmp_path):
    ids = torch.tensor(tokens(), dtype=torch.long)
    theirs.zero_grad()
    loss = theirs(ids, labels=ids).loss
    loss.backward()
    batch = causal_batch()

    def our_loss(params):
        losses = token_losses(bind(ours.config, params), batch)
        return summarize(objective_sums(losses, batch), "token_mean")["loss"]

    value, gradients = jax.value_and_grad(our_loss)(ours.params)
    np.testing.assert_allclose(value, loss.item(), atol=1e-5, rtol=0)
    # Their gradients take the way of their parameters: a file in their names, loaded here.
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.grad, parameter.data = parameter.data.clone(), parameter.grad.clone()
        theirs.save_pretrained(tmp_path)
        for parameter in theirs.parameters():
            parameter.data = parameter.grad.clone()
    theirs.zero_grad()
    expected = to_paths(glm_jax.load(tmp_path).params)
    assert expected.keys() == to_paths(gradients).keys()
    for path, gradient in to_paths(gradients).items():
        scale = np.abs(expected[path]).max()
        np.testing.assert_allclose(
            gradient, expected[path], atol=1e-4 * scale, rtol=0, err_msg=path
        )


def test_they_load_what_we_saved(theirs, ours, tmp_path):
    ours.save(tmp_path)
    model, about = type(theirs).from_pretrained(
        tmp_path, attn_implementation="eager", output_loading_info=True
    )
    assert not any(about.values()), about
    for name, parameter in theirs.state_dict().items():
        np.testing.assert_array_equal(model.state_dict()[name], parameter, err_msg=name)
    np.testing.assert_array_equal(their_logits(model), their_logits(theirs))
    assert model.config.eos_token_id == [1, 2]
    assert model.config.rope_parameters == theirs.config.rope_parameters


def test_they_load_what_went_through_original_names(theirs, ours, tmp_path):
    if ours.config.residual == "sandwich":
        with pytest.raises(UserError, match="has no original names"):
            ours.save(tmp_path / "original", names="original")
        return
    ours.save(tmp_path / "original", names="original")
    glm_jax.load(tmp_path / "original").save(tmp_path / "native", names="native")
    model = type(theirs).from_pretrained(tmp_path / "native", attn_implementation="eager")
    np.testing.assert_array_equal(their_logits(model), their_logits(theirs))
    assert model.config.eos_token_id == [1, 2]


def test_greedy_texts(theirs, ours, monkeypatch):
    # Nothing ends a text early, here or there.
    monkeypatch.setattr(theirs.generation_config, "eos_token_id", None)
    prompts = [tokens()[0, :9].tolist(), tokens()[1, :4].tolist()]
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt], dtype=torch.long)
        text = theirs.generate(ids, max_new_tokens=12, do_sample=False)[0].tolist()
        expected.append(text[len(prompt) :])
    assert [len(row) for row in expected] == [12, 12]
    assert ours.generate(prompts, max_new_tokens=12, eos_ids=[]) == expected
