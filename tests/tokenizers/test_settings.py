import pytest

from glm_jax.errors import UserError
from glm_jax.tokenizers.settings import SETTINGS, Settings, read_settings


def test_the_settings_of_a_directory(tmp_path):
    assert read_settings(tmp_path) == Settings(None, False)
    (tmp_path / SETTINGS).write_text('{"kind": "chatglm3"}')
    assert read_settings(tmp_path) == Settings("chatglm3", False)
    (tmp_path / SETTINGS).write_text('{"colliding_ids": true}')
    assert read_settings(tmp_path) == Settings(None, True)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"kind": "chatglm33"}', "did you mean 'chatglm3'"),
        ('{"kind": 3}', "kind in .* must be one of"),
        ('{"colliding_ids": 1}', "must be true or false; got 1"),
        ("[]", "must hold a JSON object"),
    ],
)
def test_bad_settings_are_refused(tmp_path, content, message):
    (tmp_path / SETTINGS).write_text(content)
    with pytest.raises(UserError, match=message):
        read_settings(tmp_path)
