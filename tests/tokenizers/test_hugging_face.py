import pytest
import tokenizers

import glm_jax
from glm_jax.errors import UserError
from tests.tokenizers.golden_chat import TEMPLATE, directory, fast_json, user, vectors

GOLDEN = vectors("glm4_chat")


@pytest.fixture
def home(tmp_path):
    config = {"eos_token": "<|endoftext|>", "pad_token": {"content": "<|endoftext|>"}}
    return directory(tmp_path / "home", fast_json(), "tokenizer.json", tokenizer_config=config)


def test_golden_ids_of_glm4(home):
    tokenizer = glm_jax.load_tokenizer(home)
    for row in GOLDEN["encode"]:
        assert tokenizer.encode(row["text"]) == row["ids"]
        assert tokenizer.decode(row["ids"]) == row["decoded"]
    assert tokenizer.special_ids == GOLDEN["special"]
    assert (tokenizer.kind, tokenizer.vocab_size) == ("glm4", 394)
    published = glm_jax.load_tokenizer(home.parent / "home" / "tokenizer.json", kind="glm4")
    assert published.special == tokenizer.special
    assert tokenizer.piece(388) == "<|assistant|>"


def test_special_tokens_do_not_come_from_text(home):
    tokenizer = glm_jax.load_tokenizer(home)
    ids = tokenizer.encode("<|user|>\nhi[MASK]")
    assert max(ids) < 380
    assert tokenizer.decode(ids) == "<|user|>\nhi[MASK]"
    assert tokenizer.encode("<|user|>\nhi", allow_special=True) == [387, 10, 104, 105]


def test_golden_prompts_without_a_template(home):
    tokenizer = glm_jax.load_tokenizer(home)
    for row in GOLDEN["chat"]:
        assert tokenizer.apply_chat_template(row["messages"]) == row["input_ids"]
    (home / "config.json").write_text('{"model_type": "glm4"}')
    tokenizer = glm_jax.load_tokenizer(home)
    assert tokenizer.kind == "glm4_0414"
    for row in GOLDEN["chat_0414"]:
        assert tokenizer.apply_chat_template(row["messages"], row["tools"]) == row["input_ids"]


def test_golden_prompts_by_a_template_of_the_directory(home):
    (home / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    tokenizer = glm_jax.load_tokenizer(home)
    for row in GOLDEN["chat"][:2]:
        assert tokenizer.apply_chat_template(row["messages"]) == row["input_ids"]
        assert tokenizer.apply_chat_template(row["messages"], tokenize=False) == row["text"]


def test_tokens_that_are_not_special_come_from_text(tmp_path):
    path = directory(tmp_path, fast_json(not_special=["<think>"]), "tokenizer.json")
    tokenizer = glm_jax.load_tokenizer(path)
    assert tokenizer.encode("<think>hi") == [394, 104, 105]
    assert "<think>" not in tokenizer.special_ids
    assert tokenizer.vocab_size == 395


def small(*added):
    """A tokenizer.json of word pieces, as no GLM has it."""
    words = {"[UNK]": 0, "hi": 1, "##s": 2, "you": 3}
    coder = tokenizers.Tokenizer(tokenizers.models.WordPiece(words, unk_token="[UNK]"))
    coder.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    coder.decoder = tokenizers.decoders.WordPiece()
    coder.add_special_tokens(list(added))
    coder.enable_truncation(1)
    coder.enable_padding(length=9)
    return coder.to_str()


GLM = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop", "<|endoftext|>")


def test_any_other_fast_tokenizer(tmp_path):
    tokenizer = glm_jax.load_tokenizer(directory(tmp_path, small(*GLM), "tokenizer.json"))
    assert tokenizer.kind == "huggingface"
    assert tokenizer.encode("his you") == [1, 2, 3]
    assert tokenizer.decode([1, 2, 3]) == "his you"
    special = tokenizer.special
    assert (special.masks, special.start, special.end) == ((4, 5, 6), 7, 8)
    assert (special.eos, special.pad, special.cls) == (9, 9, 9)
    assert tokenizer.chat_end_ids == (9,)
    with pytest.raises(UserError, match="has no chat format: neither a chat_template"):
        tokenizer.apply_chat_template(user("hi"))
    (tmp_path / "chat_template.jinja").write_text(
        "{{ eos_token }}{% for m in messages %}{{ m.content }}{% endfor %}"
    )
    config = '{"eos_token": {"content": "<|endoftext|>"}}'
    (tmp_path / "tokenizer_config.json").write_text(config)
    tokenizer = glm_jax.load_tokenizer(tmp_path)
    assert tokenizer.apply_chat_template(user("his")) == [9, 1, 2]
    assert tokenizer.read_answer([1, 2]) == {"role": "assistant", "content": "his"}


def test_what_glm_needs_and_is_not_there(tmp_path):
    path = directory(tmp_path, small("[MASK]", "<sop>"), "tokenizer.json")
    with pytest.raises(UserError, match=r"lacks the special tokens \[gMASK\], .*<eop>, eos_token"):
        glm_jax.load_tokenizer(path)


@pytest.mark.parametrize("content", ["{}", "{", '{"model": {"type": "BPE"}}', "[]", "{\xff"])
def test_what_is_no_tokenizer_json_is_refused(tmp_path, content):
    (tmp_path / "tokenizer.json").write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"tokenizer\.json"):
        glm_jax.load_tokenizer(tmp_path)


def test_a_damaged_merge_is_refused_though_the_library_panics(tmp_path):
    broken = small(*GLM).replace('"type":"WordPiece"', '"type":"BPE"')
    path = directory(tmp_path, broken, "tokenizer.json")
    with pytest.raises(UserError, match=r"no tokenizer\.json that can be read"):
        glm_jax.load_tokenizer(path)
