"""The sizes that prompts need, and the arrays that say what each row is to decode."""

import numpy as np

from glm_jax.config import ModelConfig
from glm_jax.generation.asked import arrays_of, room_for
from glm_jax.generation.options import BeamSearch, Limits
from glm_jax.generation.prompts import Prompt
from glm_jax.generation.sampling import Sampling
from glm_jax.generation.slots import Room

SIZES = {"num_layers": 1, "embed_dim": 8, "num_heads": 2, "vocab_size": 64}
FILLS = ModelConfig(**SIZES, max_positions=256).resolved()
CAUSAL = ModelConfig(**SIZES, position_encoding="rotary", max_positions=256).resolved()
TEXTS = [Prompt([5] * 60, Limits([3, 4], 9), Sampling()), Prompt([7], Limits([], 40), Sampling())]
BLANKS = [
    Prompt([1, 2, 2, 2], Limits([6], 30), Sampling(), [1, 2, 3], 5),
    Prompt([2], Limits([6], 7, 4), Sampling(repetition_penalty=2.0), [0], 9),
]


def test_the_cache_has_room_for_each_prompt_with_its_answers():
    # 60 + 9 and 1 + 40 ids; the longest answer has 40.
    assert room_for(CAUSAL, TEXTS) == Room(size=128, answers=64, blanks=1, ends=2)
    # 4 + 3 * 30 ids, three blanks in room for four.
    assert room_for(FILLS, BLANKS) == Room(size=128, answers=128, blanks=4, ends=1)


def test_a_search_has_room_for_a_padded_answer_after_all_others():
    search = [Prompt([1, 2, 2], Limits([6], 30), BeamSearch(2), [1, 2], 5)]
    # 3 + 2 * 30 ids, and one answer more of 64, which 30 are padded to.
    assert room_for(FILLS, search) == Room(size=128, answers=64, blanks=2, ends=1)


def test_free_slots_are_given_nothing_to_answer():
    asked = arrays_of(FILLS, BLANKS, room_for(FILLS, BLANKS), 4)
    np.testing.assert_array_equal(asked.num_answers, [3, 1, 0, 0])
    np.testing.assert_array_equal(asked.blanks[:2], [[1, 2, 3, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(asked.rules.start_id[:2], [5, 9])
    np.testing.assert_array_equal(asked.rules.end_ids[:2], [[6], [6]])
    np.testing.assert_array_equal(asked.rules.max_new_tokens[:2], [30, 7])
    # Without a limit of its own, a row has that of its answers together.
    np.testing.assert_array_equal(asked.rules.max_total_tokens[:2], [90, 4])


def test_ids_of_texts_are_known_only_where_one_is_penalised():
    assert arrays_of(CAUSAL, TEXTS, room_for(CAUSAL, TEXTS), 2).seen is None
    seen = arrays_of(FILLS, BLANKS, room_for(FILLS, BLANKS), 2).seen
    np.testing.assert_array_equal(np.flatnonzero(seen[0]), [1, 2])
    np.testing.assert_array_equal(np.flatnonzero(seen[1]), [2])


def test_a_continuation_is_one_answer_and_ends_are_padded_with_no_id():
    asked = arrays_of(CAUSAL, TEXTS, room_for(CAUSAL, TEXTS), 2)
    np.testing.assert_array_equal(asked.num_answers, [1, 1])
    np.testing.assert_array_equal(asked.rules.end_ids, [[3, 4], [-1, -1]])
