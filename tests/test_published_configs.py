"""The published recipes, against the settings of the published scripts (one column each)."""

from pathlib import Path

import jax
import pytest

from glm_jax.config.files import load_config
from glm_jax.sharding.mesh import make_mesh
from glm_jax.training.run.workdir import check_config

FOLDER = Path(__file__).parents[1] / "configs" / "published"

# layers, width, heads, V, P, parameters; L; task masks; bert, sentence, gpt, single, short;
# least stretch, block mask; rows; peak, beta2, epsilon, decay; schedule, floor, N, warm-up, steps.
SETTINGS = {
    "glm_base": (
        *((12, 768, 12, 30592, 512, 109_338_624), 512, False, (1, 0, 0, 0, 0), (0.5, 0), 16),
        *((4e-4, 0.98, 1e-6, 0.1), ("cosine", 0.05, 120_000, 0.05, 150_000)),
    ),
    "glm_large": (
        *((24, 1024, 16, 30592, 512, 334_688_256), 512, False, (1, 0, 0, 0, 0), (0.5, 0), 16),
        *((2e-4, 0.98, 1e-6, 0.1), ("cosine", 0.05, 160_000, 0.05, 200_000)),
    ),
    "glm_roberta_large": (
        *((24, 1024, 16, 50304, 512, 354_873_344), 512, True, (1, 0, 0, 0, 0), (0.5, 0), 16),
        *((4e-4, 0.98, 1e-6, 0.01), ("linear", 0.025, 500_000, 0.06, 500_000)),
    ),
    "glm_large_chinese": (
        *((24, 1024, 16, 50048, 1024, 355_659_776), 512, True),
        *((0.4, 0.3, 0.3, 0, 0.02), (0.25, 0.1), 32),
        *((4e-4, 0.98, 1e-6, 0.01), ("cosine", 0.1, 200_000, 0.04, 250_000)),
    ),
    "glm_10b": (
        *((48, 4096, 64, 50304, 1024, 9_880_682_496), 512, True),
        *((0.5, 0.3, 0.2, 0, 0.02), (0.25, 0.1), 21),
        *((1e-4, 0.95, 1e-8, 0.1), ("cosine", 0.1, 175_000, 0.04, 250_000)),
    ),
    "glm_10b_chinese": (
        *((48, 4096, 64, 50048, 1024, 9_879_633_920), 512, True),
        *((0.5, 0.3, 0.2, 0, 0.02), (0.25, 0.1), 21),
        *((1e-4, 0.95, 1e-8, 0.1), ("cosine", 0.1, 120_000, 0.04, 150_000)),
    ),
    "glm_10b_longer": (
        *((48, 4096, 64, 50304, 1024, 9_880_682_496), 1024, True),
        *((0.4, 0.3, 0.3, 0.05, 0.5), (0.25, 0.1), 8),
        *((3e-5, 0.95, 1e-8, 0.1), ("linear", 0.1, 50_000, 0.005, 250_000)),
    ),
    "glm_10b_chinese_longer": (
        *((48, 4096, 64, 50048, 1024, 9_879_633_920), 1024, True),
        *((0.5, 0.3, 0.2, 0, 0.5), (0.25, 0.1), 8),
        *((3e-5, 0.95, 1e-8, 0.1), ("cosine", 0.1, 20_000, 0.025, 150_000)),
    ),
}


def test_there_is_a_recipe_for_each_script():
    assert {file.stem for file in FOLDER.glob("*.py")} == set(SETTINGS)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings_of_the_published_script(name):
    shape, length, task_masks, rates, (least, block), rows, adam, falls = SETTINGS[name]
    config = load_config(FOLDER / f"{name}.py")
    model, objective, optimizer = config.model, config.objective, config.optimizer
    layers, width, heads, vocab_size, positions, parameters = shape
    assert (model.num_layers, model.embed_dim, model.num_heads) == (layers, width, heads)
    assert (model.vocab_size, model.max_positions) == (vocab_size, positions)
    tables = vocab_size * width + 2 * (positions + 1) * width
    assert parameters == tables + layers * (12 * width**2 + 13 * width) + 2 * width

    assert config.data.sequence_length == objective.published.row_length == length
    assert objective.published.task_masks == task_masks
    # The original draws single spans first, and the rest among what they leave.
    bert, sentence, gpt, single, short = rates
    expected = [single + (1 - single) * bert, (1 - single) * sentence, (1 - single) * gpt]
    found = [objective.span_rate, objective.sentence_rate, objective.document_rate]
    assert found == pytest.approx(expected)
    assert objective.span_rate * objective.single_span_rate == pytest.approx(single, abs=1e-5)
    assert objective.published.short_sequence_rate == short
    assert (objective.document_min_ratio, objective.published.block_mask_rate) == (least, block)
    assert objective.published.micro_batch_rows == rows

    assert adam == (
        optimizer.peak_learning_rate,
        optimizer.beta2,
        optimizer.epsilon,
        optimizer.weight_decay,
    )
    schedule, floor, decay_steps, warmup, steps = falls
    assert (optimizer.schedule, optimizer.final_ratio) == (schedule, floor)
    assert (optimizer.decay_steps, config.train.num_steps) == (decay_steps, steps)
    assert optimizer.warmup_steps == round(warmup * decay_steps)


@pytest.mark.parametrize("name", SETTINGS)
def test_recipes_can_run_with_both_kinds_of_rows(name):
    file = FOLDER / f"{name}.py"
    assert f"--config configs/published/{name}.py" in file.read_text()
    length = {512: 664, 1024: 1330}[load_config(file).objective.published.row_length]
    assert f"data.sequence_length={length}`" in file.read_text()
    published = ["objective.published.loader=true", f"data.sequence_length={length}"]
    for overrides in ([], published):
        config = load_config(file, overrides)
        check_config(config, make_mesh(config.mesh, jax.devices()[:1]), vocab_size=30_000)
