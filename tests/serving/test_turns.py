import pytest

from glm_jax.serving.turns import Turns


def all_of(turns):
    return [turns.take() for _ in range(len(turns))]


def filled(*pairs):
    turns = Turns()
    for client, item in pairs:
        turns.put(client, item)
    return turns


def test_clients_take_turns():
    turns = filled(("a", 1), ("a", 2), ("a", 3), ("b", 4), ("c", 5), ("b", 6))
    assert len(turns) == 6
    assert all_of(turns) == [1, 4, 5, 2, 6, 3]
    assert len(turns) == 0


def test_who_comes_later_is_behind_those_who_wait():
    turns = filled(("a", 1), ("a", 2), ("b", 3))
    assert turns.take() == 1
    turns.put("c", 4)
    assert all_of(turns) == [3, 2, 4]


def test_an_empty_queue_has_no_next():
    with pytest.raises(IndexError, match="nothing waits"):
        Turns().take()


def test_items_are_taken_out():
    turns = filled(("a", 1), ("a", 2), ("b", 3), ("b", 4))
    assert sorted(turns.remove(lambda item: item in (1, 3, 4))) == [1, 3, 4]
    assert len(turns) == 1
    assert all_of(turns) == [2]
