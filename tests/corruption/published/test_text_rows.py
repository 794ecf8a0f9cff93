"""The rows of the published data set, from the number of the row alone."""

import numpy as np
import pytest

from glm_jax.corruption.published import Texts, text_row
from glm_jax.special_tokens import SpecialTokens

SPECIAL = SpecialTokens(mask=2, gmask=7, smask=8, start=5, end=6, cls=1, eos=0, pad=0)
ENDS = np.isin(np.arange(256), range(10, 16))


@pytest.mark.parametrize("number", range(32))
def test_golden_rows(number, golden):
    cases = golden("data/dataset.json")["cases"]
    assert len(cases) == 32
    case = cases[number]
    given = {c["id"]: c["input"] for c in cases}
    documents = case["input"]["documents"]
    if isinstance(documents, str):
        documents = given[documents.removeprefix("see ")]["documents"]
    row = text_row(
        case["input"]["index"],
        Texts(
            np.concatenate(documents),
            np.append(0, np.cumsum([len(document) for document in documents])),
        ),
        special=SPECIAL,
        sentence_ends=ENDS,
        length=case["input"]["max_seq_length"],
        mid_sentence_rate=case["input"]["non_sentence_start"],
    )
    assert row.tokens.tolist() == case["output"]["tokens"]
    assert row.weights.tolist() == case["output"]["loss_mask"]


def test_weights_of_a_prompt_go_with_its_tokens():
    prompted = np.arange(40) >= 15
    for index in range(8):
        row = text_row(
            index,
            Texts(np.arange(100, 140), np.array([0, 40]), prompted.astype(np.int64)),
            special=SPECIAL,
            sentence_ends=ENDS,
            length=30,
        )
        assert row.weights.tolist() == [int(token == 0 or token >= 115) for token in row.tokens]
