"""lm-evaluation-harness against the server; skipped where it or transformers is not installed.

The adapter (`glm_jax.evaluation.harness`) asks the same model the same tasks without a server.
"""

import json

import jax
import pytest

import glm_jax
from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.generation.language_model import LanguageModel
from glm_jax.models.params import create_params
from glm_jax.serving.scheduler import Scheduler
from glm_jax.sharding.mesh import make_mesh
from tests.serving.fakes import served, until
from tests.tokenizers.golden_chat import directory, fast_json

lm_eval = pytest.importorskip("lm_eval")
pytest.importorskip("tenacity", reason="lm-eval[api]")
pytest.importorskip("transformers")

from glm_jax.evaluation.harness import Harness  # noqa: E402 - not without lm_eval

QUESTIONS = [
    {"q": "hello", "options": ["the day", "a night", "!"], "gold": 0},
    {"q": "in the beginning God made", "options": ["light", "the sea and land", "a"], "gold": 1},
    {"q": "床前明月", "options": ["光", "床", "hello"], "gold": 0},
]
TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
doc_to_text: '{{{{q}}}}'
target_delimiter: ' '
"""
CHOICES = """output_type: multiple_choice
doc_to_choice: '{{options}}'
doc_to_target: gold
metric_list: [{metric: acc}]
"""
TEXTS = """output_type: generate_until
doc_to_target: '{{options[0]}}'
generation_kwargs: {until: ['e'], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A directory with the golden vocabulary, to which transformers adds GLM-4's two tokens."""
    vocabulary = json.loads(fast_json())
    ids = {one["content"]: one["id"] for one in vocabulary["added_tokens"]}
    start = ["[gMASK]", "<sop>"]
    vocabulary["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            *({"SpecialToken": {"id": one, "type_id": 0}} for one in start),
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": one, "type_id": 0}} for one in "AB"],
        "special_tokens": {one: {"id": one, "ids": [ids[one]], "tokens": [one]} for one in start},
    }
    config = {"eos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}
    path = tmp_path_factory.mktemp("glm4") / "home"
    return directory(path, json.dumps(vocabulary), "tokenizer.json", tokenizer_config=config)


@pytest.fixture(scope="module")
def lm(home):
    tokenizer = glm_jax.load_tokenizer(home)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        num_layers=2,
        embed_dim=32,
        num_heads=2,
        position_encoding="rotary",
        max_positions=128,
        initializer_range=0.3,
    )
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return LanguageModel(config, create_params(config, mesh, seed=0), tokenizer)


@pytest.fixture(scope="module")
def address(lm):
    scheduler = Scheduler(lm, slots=4, queue=64)
    scheduler.start()
    assert until(lambda: scheduler.counts().state == "ready", 300)
    with served(scheduler, lm) as address:
        yield address


@pytest.fixture
def answers(tmp_path, monkeypatch):
    """Asks both tasks: {task: all answers in order}, and {task: its metrics}."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    from lm_eval.tasks import TaskManager

    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps(one) + "\n" for one in QUESTIONS), encoding="utf-8")
    for name, rest in (("choices", CHOICES), ("texts", TEXTS)):
        (tmp_path / f"{name}.yaml").write_text(TASK.format(name=name, data=data) + rest)

    def answers(model, **options):
        found = lm_eval.simple_evaluate(
            model=model,
            tasks=["choices", "texts"],
            task_manager=TaskManager(include_path=str(tmp_path), include_defaults=False),
            bootstrap_iters=0,
            **options,
        )
        told = {
            name: [answer for one in samples for answer in one["filtered_resps"]]
            for name, samples in found["samples"].items()
        }
        return told, found["results"]["choices"]["acc,none"]

    return answers


@pytest.mark.parametrize(
    "how",
    [
        {"tokenized_requests": False},
        {"add_bos_token": True},
        {"tokenized_requests": False, "num_concurrent": 4, "batch_size": 2},
    ],
)
def test_the_harness_finds_the_same_through_the_server(lm, home, address, answers, how):
    expected, accuracy = answers(Harness(lm))
    options = {
        "model": "m",
        "base_url": f"{address}/v1/completions",
        "tokenizer": str(home),
        "tokenizer_backend": "huggingface",
        "max_length": 128,
        **how,
    }
    found, through = answers("local-completions", model_args=options)
    assert through == accuracy
    assert found["texts"] == expected["texts"]
    assert len(found["choices"]) == 9
    for (one, one_greedy), (other, other_greedy) in zip(
        found["choices"], expected["choices"], strict=True
    ):
        assert one == pytest.approx(other, abs=1e-4)
        assert one_greedy == other_greedy
