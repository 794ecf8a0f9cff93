import json

import pytest

from glm_jax.errors import UserError
from glm_jax.interop.origin import Origin, eos_in, read_generation


def test_generation_config_comes_before_config():
    both = Origin(values={"eos_token_id": 2}, generation={"eos_token_id": [7, 9]})
    assert both.eos_ids == [7, 9]
    assert Origin(values={"eos_token_id": 2}).eos_ids == [2]
    assert Origin(generation={"eos_token_id": 0}).eos_ids == [0]
    assert Origin().eos_ids is None


def test_a_directory_without_a_generation_config(tmp_path):
    assert read_generation(tmp_path) == {}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": 5, "top_k": 3}))
    assert read_generation(tmp_path) == {"eos_token_id": 5, "top_k": 3}


@pytest.mark.parametrize("eos", ["2", True, 2.5, [2, "3"], -1, [[1]]])
def test_ends_that_are_no_ids(eos):
    with pytest.raises(UserError, match="eos_token_id in a file must be an id or a list of ids"):
        eos_in("a file", {"eos_token_id": eos})
