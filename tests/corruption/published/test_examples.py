"""The laws of examples, on synthetic texts, against 20,480 texts of each kind through the original.

By the tests that the numbers' README names: chi-square at p > 1e-4 where the draws are independent,
means within five standard errors otherwise. What rows of a micro-batch share makes them dependent,
so errors are those of sums over micro-batches.
"""

import random

import numpy as np
import pytest
from scipy import stats

from glm_jax.batch import DOCUMENT, SENTENCE, SPAN
from glm_jax.corruption.published import TextRow, build_micro_batch
from glm_jax.ragged import sums_before

CLS, HIDDEN = 1, 9
MODES = {SPAN: "bert", SENTENCE: "sentence", DOCUMENT: "gpt"}
QUICK = {
    "span_full": 1600,
    "span_packed_documents": 800,
    "sentence_full": 1600,
    "gmask_full_min25": 1600,
    "single_span_only": 800,
}
ALL = [
    "span_full",
    "span_full_truncated",
    "span_variable_length",
    "span_packed_documents",
    "sentence_full",
    "single_span_only",
    "gmask_full_min25",
    "gmask_full_min50",
    "gmask_packed_min25",
    "mixture_10B",
    "mixture_10B_longer",
]
# Compared by histogram; the rest, and these in mixtures with short texts, by their means.
HISTOGRAMS = ("span_length", "n_spans", "gap")


def text(rng, settings):
    """A row as `settings.regime` says: random words, [CLS] first."""
    length, regime = settings["max_seq_length"], settings["regime"]

    def document(size):
        words = rng.integers(30, 200, size)
        ends = rng.random(size) < settings["sentence_end_prob_per_token"]
        words = np.where(ends, rng.integers(10, 16, size), words)
        words[0], words[-1] = CLS, 0
        return words

    if regime == "packed":
        sizes = rng.integers(16, length // 2 + 1, length // 16)
        return np.concatenate([document(size) for size in sizes])[:length]
    if regime == "full_truncated":
        return document(length + 1)[:length]
    return document(length if regime == "full_with_eos" else rng.integers(length // 8, length + 1))


def measure(fields):
    """What the golden numbers hold of one example: name -> list of numbers."""
    part_a, total = int(fields["attend_end"][0]), len(fields["tokens"])
    first = np.flatnonzero(fields["block_positions"] == 1)
    slots = np.diff(first, append=total)
    if part_a and fields["tokens"][part_a - 1] == 7 and len(first) == 1:
        return {"gen_length": [slots[0]], "gen_length_ratio": [slots[0] / (total - 1)]}
    order = np.argsort(fields["positions"][first])
    length = slots[order] - 1
    k = len(first)
    start = fields["positions"][first][order] + sums_before(length - 1, np.array([k]))
    n = total - 2 * k
    found = {
        "n_spans": [k],
        "masked_tokens": [length.sum()],
        "masked_ratio": [length.sum() / n],
        "part_a_length": [part_a],
        "part_b_length": [total - part_a],
        "total_length": [total],
        "span_length": length,
        "span_start_rel": start / n,
        "gap": start[1:] - (start + length)[:-1],
        "first_token_masked": [1 in start],
        "last_token_masked": [n in start + length],
        "leftmost_span_is_first_in_b": [order[0] == 0] if k > 1 else [],
        "dblock_tokens": [(fields["tokens"][part_a:] == HIDDEN).sum()],
    }
    if fields["objective"].max() == DOCUMENT:
        return {f"middle_{name}": value for name, value in found.items()} | {
            "gen_length": length,
            "gen_length_ratio": length / n,
        }
    return found


def gather(settings, rules, rows):
    """{mode: {name: one array of numbers for each micro-batch}} of that many rows."""
    rng = np.random.default_rng(settings["numpy_seed"])
    hide = random.Random(0)
    found = {}
    for number in range(rows // settings["batch_size"]):
        given = [text(rng, settings) for _ in range(settings["batch_size"])]
        texts = [TextRow(tokens, np.ones(len(tokens), np.int64)) for tokens in given]
        made = build_micro_batch(texts, rules, random.Random(number), hide)
        examples = [fields for row in made.examples for fields in row]
        here = found.setdefault(MODES[made.objective], {})
        batch = {"total_length_padded": [max(len(fields["tokens"]) for fields in examples)]}
        for fields in examples:
            for name, values in measure(fields).items():
                batch[name] = [*batch.get(name, []), *values]
        for name, values in batch.items():
            here.setdefault(name, []).append(np.asarray(values, np.float64))
    return found


def assert_same_counts(histogram, values, name):
    """Chi-square of two samples, rare numbers together."""
    theirs = {int(value): count for value, count in histogram.items()}
    lowest = min([*theirs, int(values.min())])
    size = max([*theirs, int(values.max())]) - lowest + 1
    table = np.zeros((2, size))
    for value, count in theirs.items():
        table[0, value - lowest] = count
    table[1] = np.bincount(values.astype(np.int64) - lowest, minlength=size)
    expected = table.sum(axis=0) * table[1].sum() / table.sum()
    common = expected >= 5
    table = np.column_stack([table[:, common], table[:, ~common].sum(axis=1)])
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] > 1:
        assert stats.chi2_contingency(table).pvalue > 1e-4, name


def assert_same_mean(mean, batches, number_of_batches, name):
    """Means within five standard errors, micro-batches being independent, rows of one not."""
    total = np.array([values.sum() for values in batches])
    count = np.array([len(values) for values in batches])
    ours = total.sum() / count.sum()
    residual = total - ours * count
    spread = residual.std() * len(batches) / count.sum()
    error = spread * np.sqrt(1 / len(batches) + 1 / number_of_batches)
    assert abs(ours - mean) <= 5 * error + 1e-9, (name, ours, mean, error)


def compare(reference, found):
    compared = 0
    mixed = "short_seq_prob" in reference["settings"]
    for mode, expected in reference["modes"].items():
        if mode == "split":
            continue
        for name, value in expected.items():
            if name in found[mode] and isinstance(value, dict):
                batches = found[mode][name]
                if not sum(len(values) for values in batches):
                    continue
                summary = value.get("summary", value)
                mean = summary.get("mean", summary.get("fraction"))
                label = f"{mode} {name}"
                assert_same_mean(mean, batches, reference["counts"][f"batches_{mode}"], label)
                if not mixed and name in HISTOGRAMS and "histogram" in value:
                    assert_same_counts(value["histogram"], np.concatenate(batches), label)
                compared += 1
    return compared


def check(name, golden, toy_rules, rows):
    reference = golden(f"stats/{name}.json")
    settings = reference["settings"]
    rules = toy_rules(settings, settings["max_seq_length"])
    return compare(reference, gather(settings, rules, rows))


@pytest.mark.parametrize(("name", "rows"), QUICK.items(), ids=list(QUICK))
def test_laws_of_the_published_loader(name, rows, golden, toy_rules):
    assert check(name, golden, toy_rules, rows) >= 10


@pytest.mark.nightly
@pytest.mark.parametrize("name", ALL)
def test_laws_of_all_settings(name, golden, toy_rules):
    assert check(name, golden, toy_rules, 20480) >= 3
