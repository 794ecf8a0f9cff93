import numpy as np

from glm_jax.interop.architectures.rows import linear, norm, same


def test_a_matrix_is_transposed_and_cut_into_heads():
    weight, bias = linear("dense", ["out"], (2, 3), [(5,)], bias=True)
    assert (weight.key, weight.shape, weight.paths) == ("dense.weight", (5, 6), ("out/kernel",))
    tensor = np.arange(30).reshape(5, 6)
    (kernel,) = weight.split(tensor)
    assert kernel.shape == (2, 3, 5)
    # Output 4 from head 1, number 2: row 4, column 1 * 3 + 2.
    assert kernel[1, 2, 4] == tensor[4, 5] == 29
    np.testing.assert_array_equal(weight.join(kernel), tensor)
    assert (bias.key, bias.shape, bias.paths) == ("dense.bias", (5,), ("out/bias",))


def test_several_matrices_lie_one_after_the_other_in_one_tensor():
    weight, bias = linear("qkv", ["q", "k", "v"], (4,), [(3, 2), (1, 2), (1, 2)], bias=True)
    assert weight.shape == (6 + 2 + 2, 4)
    assert weight.paths == ("q/kernel", "k/kernel", "v/kernel")
    tensor = np.arange(40).reshape(10, 4)
    query, key, value = weight.split(tensor)
    assert (query.shape, key.shape, value.shape) == ((4, 3, 2), (4, 1, 2), (4, 1, 2))
    # The second number of query head 2, from input 3: row 2 * 2 + 1. The first of the value: row 8.
    assert query[3, 2, 1] == tensor[5, 3]
    assert value[1, 0, 0] == tensor[8, 1]
    np.testing.assert_array_equal(weight.join(query, key, value), tensor)
    parts = bias.split(np.arange(10))
    assert [part.tolist() for part in parts] == [[[0, 1], [2, 3], [4, 5]], [[6, 7]], [[8, 9]]]
    assert bias.join(*parts).tolist() == list(range(10))


def test_splitting_copies_nothing():
    tensor = np.arange(40).reshape(10, 4)
    rows = linear("qkv", ["q", "k", "v"], (4,), [(3, 2), (1, 2), (1, 2)], bias=False)
    rows.append(same("table", "table", (10, 4)))
    for row in rows:
        assert all(np.shares_memory(part, tensor) for part in row.split(tensor))


def test_without_a_bias_there_is_one_row():
    assert [row.key for row in linear("up", ["up"], (4,), [(8,)], bias=False)] == ["up.weight"]
    assert [row.key for row in norm("ln", "norm", 4, bias=False)] == ["ln.weight"]
    rows = norm("ln", "norm", 4, bias=True)
    assert [(row.key, row.paths) for row in rows] == [
        ("ln.weight", ("norm/scale",)),
        ("ln.bias", ("norm/bias",)),
    ]
