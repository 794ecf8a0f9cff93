"""The metrics of tasks in files: numbers of each example first, then what they give together.

    exact_match   of an answer, after SQuAD's normalisation        "The Cat." is "cat"
    exact         of an answer, white space around it aside
    f1            of its tokens, as SQuAD's script has it
    rouge1, rouge2, rougeL    F-measures, by the package rouge-score
    bleu          of all answers together, by the package sacrebleu

Of several references the best counts; BLEU has its own rule for several. Chinese is compared by
characters, and words in Latin letters stay whole.
"""

import dataclasses
import functools
import importlib.util
import re
import string
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64

from glm_jax.errors import UserError, how_to_install
from glm_jax.evaluation.statistics import Rows, Value, bootstrap_error, mean

if TYPE_CHECKING:
    from rouge_score.rouge_scorer import RougeScorer
    from sacrebleu.metrics import BLEU

LANGUAGES = ("en", "zh")
_ARTICLES = re.compile(r"\b(a|an|the)\b")
_ORDERS = 4  # n-grams of BLEU
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
_CHINESE_TOKEN = re.compile(r"[a-z0-9]+|[^\sa-z0-9]")

Row = Float64[np.ndarray, " k"]


@dataclasses.dataclass(frozen=True)
class Metric:
    """What becomes of the rows of all examples.

    Attributes:
      value: from the sum of the rows [k] to the metric.
      higher_is_better: False for losses.
    """

    value: Value
    higher_is_better: bool = True


@dataclasses.dataclass(frozen=True)
class Measured:
    """A metric of a model on some examples.

    Attributes:
      value: the metric.
      standard_error: NaN where it is not known, as of one example.
      method: of the standard error, "mean" or "bootstrap".
      examples: their number.
    """

    value: float
    standard_error: float
    method: str
    examples: int


def ratio(sums: Row) -> float:
    """The first number per second: the mean of an example's numbers, from rows [x, 1]."""
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def _exp_ratio(sums: Row) -> float:
    return float(np.exp(ratio(sums)))


def _bleu(sums: Row) -> float:
    """BLEU from 0 to 100, from [system length, reference length, 4 correct, 4 total]."""
    counts = [int(number) for number in sums]
    correct, total = counts[2 : 2 + _ORDERS], counts[2 + _ORDERS :]
    score = _sacrebleu("13a").compute_bleu(correct, total, counts[0], counts[1])
    return float(score.score)


_MEAN = Metric(ratio)

# Of all kinds of tasks. `first_K` of any K stands in `metric_of`.
METRICS: Mapping[str, Metric] = {
    "accuracy": _MEAN,
    "accuracy_per_token": _MEAN,
    "accuracy_per_character": _MEAN,
    "accuracy_unconditional": _MEAN,
    "exact_match": _MEAN,
    "exact": _MEAN,
    "f1": _MEAN,
    "rouge1": _MEAN,
    "rouge2": _MEAN,
    "rougeL": _MEAN,
    "bleu": Metric(_bleu),
    "loss": Metric(ratio, higher_is_better=False),
    "perplexity": Metric(_exp_ratio, higher_is_better=False),
    "perplexity_per_word": Metric(_exp_ratio, higher_is_better=False),
    "bits_per_byte": Metric(ratio, higher_is_better=False),
}


def metric_of(name: str) -> Metric:
    """A metric by its name; "first_5" and the like are means."""
    return _MEAN if first_k(name) else METRICS[name]


def first_k(name: str) -> int:
    """K of a metric "first_K", the answer is among the K most probable fillings; 0: none such."""
    found = re.fullmatch(r"first_([1-9]\d{0,2})", name)
    return int(found[1]) if found else 0


def measure(name: str, rows: Rows) -> Measured:
    """A metric of all examples, with its standard error.

    The standard error of a mean is s / sqrt(n); of any other metric that of a bootstrap over
    examples (`glm_jax.evaluation.statistics`).

    Args:
      name: of the metric.
      rows: of the examples, [n, k].
    """
    value = metric_of(name).value
    if value is ratio and rows.shape[1] == 2 and bool((rows[:, 1] == 1).all()):
        error, method = mean(rows[:, 0]).error, "mean"
    else:
        error, method = bootstrap_error(rows, value), "bootstrap"
    return Measured(value(rows.sum(axis=0)), error, method, len(rows))


@dataclasses.dataclass(frozen=True)
class Wording:
    """How texts are compared.

    Attributes:
      language: "en": SQuAD's words, BLEU's tokenizer 13a; "zh": characters, BLEU's tokenizer zh.
      stemmer: ROUGE compares words after Porter's stemmer; for English alone.
    """

    language: str = "en"
    stemmer: bool = False


def compared(name: str, answer: str, references: Sequence[str], how: Wording) -> Row:
    """The row of an answer in a metric of `TEXT_METRICS`.

    Args:
      name: of the metric.
      answer: of the model.
      references: right answers, one at least.
      how: to compare.
    """
    return np.array(TEXT_METRICS[name](answer, references, how), np.float64)


def normalized(text: str, language: str = "en") -> list[str]:
    """The tokens of a text in SQuAD's script: lower case, no punctuation, no articles.

    "The cat, sat!" -> [cat, sat]        "zh": "模型GLM-130B。" -> [模, 型, glm130b]
    """
    text = text.lower()
    if language == "zh":
        kept = "".join(c for c in text if unicodedata.category(c)[0] != "P")
        return _CHINESE_TOKEN.findall(kept)
    return _ARTICLES.sub(" ", text.translate(_NO_PUNCTUATION)).split()


def token_f1(answer: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of two bags of tokens; of two empty ones 1, of one empty one 0 (SQuAD 2.0's script)."""
    if not answer or not reference:
        return float(answer == reference)
    common = (Counter(answer) & Counter(reference)).total()
    return 2 * common / (len(answer) + len(reference))


def signature(name: str, how: Wording, counts: Sequence[int]) -> str:
    """How a package computed a metric, for whoever compares numbers; "" for the others.

    Args:
      name: of the metric.
      how: texts are compared.
      counts: numbers of references, of each example.
    """
    if name == "bleu":
        several, most = len(set(counts)) > 1, max(counts)
        metric = _sacrebleu(_bleu_tokenizer(how))
        references = [["a", "a"], *[["a", None if several else "a"]] * (most - 1)]
        # None is an example with fewer references, which sacrebleu's annotation leaves out.
        metric.corpus_score(["a", "a"], references)  # type: ignore[arg-type]
        return f"sacrebleu {metric.get_signature()}"
    if name.startswith("rouge"):
        from importlib.metadata import version

        stemmed = "Porter's stemmer" if how.stemmer else "no stemmer"
        units = "characters" if how.language == "zh" else "words"
        return f"rouge-score {version('rouge-score')}, F-measure, {units}, {stemmed}"
    return ""


def check_packages(names: Sequence[str]) -> None:
    """Refuses metrics whose package is not installed.

    Raises:
      UserError: names the metric and the package.
    """
    for name in names:
        package = _PACKAGES.get(name)
        if package and importlib.util.find_spec(package) is None:
            raise UserError(
                f"the metric {name!r} needs the package {package.replace('_', '-')}, which is not "
                f"installed; install it with: {how_to_install('eval')}"
            )


def _exact_match(answer: str, references: Sequence[str], how: Wording) -> list[float]:
    own = normalized(answer, how.language)
    return [float(any(own == normalized(one, how.language) for one in references)), 1.0]


def _exact(answer: str, references: Sequence[str], how: Wording) -> list[float]:
    return [float(answer.strip() in [one.strip() for one in references]), 1.0]


def _f1(answer: str, references: Sequence[str], how: Wording) -> list[float]:
    own = normalized(answer, how.language)
    return [max(token_f1(own, normalized(one, how.language)) for one in references), 1.0]


def _rouge(
    answer: str, references: Sequence[str], how: Wording, kind: str = "rouge1"
) -> list[float]:
    found = _rouge_scorer(how).score_multi(references, answer)
    return [float(found[kind].fmeasure), 1.0]


def _bleu_counts(answer: str, references: Sequence[str], how: Wording) -> list[float]:
    found = _sacrebleu(_bleu_tokenizer(how), by_sentence=True).sentence_score(answer, references)
    return [found.sys_len, found.ref_len, *found.counts, *found.totals]


# From an answer and its references to a row.
TEXT_METRICS: Mapping[str, Callable[[str, Sequence[str], Wording], list[float]]] = {
    "exact_match": _exact_match,
    "exact": _exact,
    "f1": _f1,
    "rouge1": functools.partial(_rouge, kind="rouge1"),
    "rouge2": functools.partial(_rouge, kind="rouge2"),
    "rougeL": functools.partial(_rouge, kind="rougeL"),
    "bleu": _bleu_counts,
}
_PACKAGES = {
    "bleu": "sacrebleu",
    **dict.fromkeys(("rouge1", "rouge2", "rougeL"), "rouge_score"),
}


def _bleu_tokenizer(how: Wording) -> str:
    return "zh" if how.language == "zh" else "13a"


@functools.cache
def _sacrebleu(tokenizer: str, by_sentence: bool = False) -> "BLEU":
    """The package's metric. Counts of a sentence do not depend on `by_sentence`; a warning does."""
    from sacrebleu.metrics import BLEU

    return BLEU(tokenize=tokenizer, effective_order=by_sentence)


class _ByCharacters:
    """What rouge-score splits texts with."""

    def tokenize(self, text: str) -> list[str]:
        return normalized(text, "zh")


@functools.cache
def _rouge_scorer(how: Wording) -> "RougeScorer":
    from rouge_score.rouge_scorer import RougeScorer

    kinds = ["rouge1", "rouge2", "rougeL"]
    if how.language == "zh":
        return RougeScorer(kinds, tokenizer=_ByCharacters())
    return RougeScorer(kinds, use_stemmer=how.stemmer)
