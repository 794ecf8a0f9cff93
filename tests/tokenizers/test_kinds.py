import shutil

import pytest

import glm_jax
from glm_jax.errors import UserError
from glm_jax.tokenizers.kinds import fast_tokenizer, tokenizer_of_kind, told_tokenizer
from glm_jax.tokenizers.settings import KINDS
from tests.tokenizers.golden_chat import ICE_TEXT, PIECES, RANKS, directory, fast_json

ROLES = "[gMASK]sop{% for m in messages %}<|assistant|>{% endfor %}"
CODE = "tokenization_chatglm.py"


def kind_of(path):
    return glm_jax.load_tokenizer(path).kind


def test_files_alone_tell_their_kind(tmp_path):
    assert kind_of(ICE_TEXT) == "chatglm"
    assert kind_of(RANKS) == "glm4"
    (tmp_path / "any.json").write_text(fast_json())
    assert kind_of(tmp_path / "any.json") == "glm4"
    assert kind_of(shutil.copy(RANKS, tmp_path / "tokenizer.model")) == "glm4"


def test_pieces_alone_leave_it_open(tmp_path):
    path = directory(tmp_path / "model", PIECES, "tokenizer.model")
    for place in (path, path / "tokenizer.model"):
        with pytest.raises(UserError, match='of ChatGLM2 or ChatGLM3, say kind="chatglm2" or'):
            glm_jax.load_tokenizer(place)
        assert told_tokenizer(place) is None


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"tokenizer_config": {"chat_template": ROLES}}, "chatglm3"),
        ({"template": ROLES}, "chatglm3"),
        ({"tokenizer_config": {"name_or_path": "THUDM/chatglm2-6b"}}, "chatglm2"),
        ({"config": {"_name_or_path": "THUDM/chatglm3-6b-32k"}}, "chatglm3"),
        ({"config": {"_name_or_path": "THUDM/codegeex2-6b"}}, "chatglm2"),
        ({"glm_tokenizer": {"kind": "chatglm2"}, "template": ROLES}, "chatglm2"),
    ],
)
def test_what_lies_beside_them_tells(tmp_path, files, kind):
    path = directory(tmp_path / "model", PIECES, "tokenizer.model", **files)
    assert kind_of(path) == kind_of(path / "tokenizer.model") == kind


@pytest.mark.parametrize(
    ("code", "kind"), [("ids = {'<|assistant|>': 3}", "chatglm3"), ("x = 1", "chatglm2")]
)
def test_published_code_tells_and_is_not_run(tmp_path, code, kind):
    path = directory(tmp_path / "model", PIECES, "tokenizer.model")
    (path / CODE).write_text(f"raise SystemExit\n{code}")
    assert kind_of(path) == kind


def test_a_template_of_others_tells_nothing(tmp_path):
    path = directory(tmp_path / "model", PIECES, "tokenizer.model", template="<|assistant|>")
    assert told_tokenizer(path) is None


def test_names_of_directories_tell(tmp_path):
    path = directory(tmp_path / "ChatGLM3-6b", PIECES, "tokenizer.model")
    assert kind_of(path) == "chatglm3"
    hub = tmp_path / "models--THUDM--chatglm2-6b" / "snapshots"
    hub.mkdir(parents=True)
    assert kind_of(shutil.copytree(path, hub / "0123")) == "chatglm2"


def test_ranks_beside_a_model_of_0414(tmp_path):
    path = directory(tmp_path, RANKS, "tokenizer.model", config={"model_type": "glm4"})
    assert kind_of(path) == "glm4_0414"


def test_the_kind_that_is_asked_for(tmp_path):
    assert tokenizer_of_kind(PIECES, "chatglm2").kind == "chatglm2"
    path = directory(tmp_path, PIECES, "tokenizer.model")
    (path / "tokenizer.json").write_text(fast_json())
    assert tokenizer_of_kind(path, "chatglm3").kind == "chatglm3"
    assert tokenizer_of_kind(path, "glm4_0414").kind == "glm4_0414"
    assert kind_of(path) == "glm4"  # the one that tells


@pytest.mark.parametrize(
    ("file", "kind", "message"),
    [
        (PIECES, "glm4", "is not of the kind 'glm4': it holds neither ranks in base64 nor JSON"),
        (PIECES, "chatglm", r"tokenizer\.model lacks the special tokens \[MASK\]"),
        (RANKS, "chatglm3", "is not a sentencepiece model"),
        (RANKS, "chatglm", "is not a sentencepiece model"),
        (RANKS.parent, "chatglm5", r"kind must be one of .*; got 'chatglm5' \(did you mean"),
        (RANKS.parent / "nothing", "glm4", "no tokenizer of the kind 'glm4' at"),
        (RANKS.parents[2], "chatglm", r"there is no ice_text\.model"),
        (RANKS.parents[2], "glm4", r"no tokenizer\.model and no tokenizer\.json"),
    ],
)
def test_files_of_another_kind_are_refused(file, kind, message):
    with pytest.raises(UserError, match=message):
        glm_jax.load_tokenizer(file, kind=kind)


def test_every_kind_is_saved_with_its_kind(tmp_path):
    files = {"chatglm": ICE_TEXT, "glm4": RANKS, "glm4_0414": RANKS}
    assert files.keys() < set(KINDS)
    for kind in KINDS:
        tokenizer = glm_jax.load_tokenizer(files.get(kind, PIECES), kind=kind)
        (tmp_path / kind).mkdir()
        tokenizer.save(tmp_path / kind)
        again = glm_jax.load_tokenizer(tmp_path / kind)
        assert (again.kind, again.fingerprint) == (kind, tokenizer.fingerprint)
        assert again.special == tokenizer.special


def test_a_tokenizer_json_of_whatever_tokens(tmp_path):
    assert fast_tokenizer(tmp_path) is None
    assert fast_tokenizer(PIECES) is None
    path = directory(tmp_path, fast_json(), "tokenizer.json")
    assert fast_tokenizer(path).kind == "glm4"
