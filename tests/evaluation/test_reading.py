import math

import numpy as np
import pytest

from glm_jax.errors import UserError
from glm_jax.evaluation import reading
from glm_jax.evaluation.metrics import measure
from glm_jax.evaluation.prompting import Prompts
from glm_jax.evaluation.task_spec import Spec
from tests.evaluation.models import BLANKS, CAUSAL, SPECIAL, TOKENIZER, random_model

ALL = ("loss", "perplexity", "perplexity_per_word", "bits_per_byte")
TEXT = "In the beginning, God created the heavens and the earth. The earth was formless."
SPEC = Spec("perplexity", "d", metrics=ALL, window=12, stride=5)


def prepared(text, spec=SPEC, config=BLANKS):
    one = reading.example(spec, ("d.jsonl, line 2", {"text": text}))
    return reading.prepare(Prompts(TOKENIZER, config), spec, one)


@pytest.mark.parametrize(("causal", "both_ways"), [(False, False), (False, True), (True, False)])
def test_perplexity_is_that_of_the_model(causal, both_ways):
    lm = random_model(causal)
    spec = Spec("perplexity", "d", metrics=ALL, window=12, stride=5, bidirectional=both_ways)
    some = [prepared(text, spec, lm.config) for text in (TEXT, "God said, let there be light.")]
    outcomes = reading.ask(lm, spec, some)
    prefix = [SPECIAL.gmask, SPECIAL.start] if causal else [SPECIAL.cls]
    scores = [
        lm.token_log_probabilities(one.prompt, both_ways, 12, 5, prefix_ids=prefix) for one in some
    ]
    loss, count = -sum(one.sum() for one in scores), sum(map(len, scores))
    found = {
        name: measure(name, np.stack([one.rows[name] for one in outcomes])).value for name in ALL
    }
    assert found["loss"] == pytest.approx(loss / count, rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(loss / count), rel=1e-5)
    assert found["perplexity_per_word"] == pytest.approx(math.exp(loss / (13 + 5)), rel=1e-5)
    size = sum(len(TOKENIZER.decode(one.prompt[1:]).encode()) for one in some)
    assert found["bits_per_byte"] == pytest.approx(loss / math.log(2) / size, rel=1e-5)
    assert count == sum(len(one.prompt) - 1 for one in some)


def test_what_cannot_be_read():
    both = Spec("perplexity", "d", metrics=ALL, bidirectional=True)
    with pytest.raises(UserError, match="bidirectional is for models that fill blanks"):
        prepared(TEXT, both, CAUSAL)
    with pytest.raises(UserError, match="line 2: a text needs two tokens at least; got ''"):
        prepared("")
    with pytest.raises(UserError, match="line 2: perplexity_per_word needs two words"):
        prepared("Unquestionably")
    with pytest.raises(UserError, match="stride must be at most 11; got 12"):
        prepared(TEXT, Spec("perplexity", "d", metrics=ALL, window=12, stride=12))
    with pytest.raises(UserError, match="stride must be at most 62; got 63"):
        prepared(TEXT, Spec("perplexity", "d", metrics=ALL, stride=63))
    with pytest.raises(UserError, match="window must be at most 63"):
        prepared(TEXT, Spec("perplexity", "d", metrics=ALL, window=90))
