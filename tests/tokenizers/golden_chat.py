"""The golden vectors of tokenizers and chats, and directories of tokenizers made of them."""

import json
import shutil
from pathlib import Path

import glm_jax

FOLDER = Path(__file__).parents[1] / "golden" / "chatglm" / "chat"
ICE_TEXT, PIECES = FOLDER / "ice_text.model", FOLDER / "tokenizer.model"
RANKS = FOLDER / "glm4_tokenizer.model"
WEATHER = {
    "name": "get_weather",
    "description": "天气",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
}
# A template of our own in the form of GLM-4-0414's.
TEMPLATE = """[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>{{ m.metadata or '' }}
{{ m.content }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""


def vectors(name):
    """The content of a file: vectors("chatglm2_chat")."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def messages_of(row):
    """{"history": [["a", "b"]], "query": "c"} as messages."""
    pairs = [("user", "assistant")] * len(row["history"])
    said = [
        {"role": role, "content": text}
        for roles, texts in zip(pairs, row["history"], strict=True)
        for role, text in zip(roles, texts, strict=True)
    ]
    return [*said, {"role": "user", "content": row["query"]}]


def user(text):
    return [{"role": "user", "content": text}]


def fast_json(not_special=()):
    """The golden GLM-4 vocabulary as a tokenizer.json, as the repositories named -hf have it."""
    import tokenizers

    tokenizer = glm_jax.load_tokenizer(RANKS)
    coder = tokenizers.Tokenizer.from_str(tokenizer._coder.to_str())
    coder.add_special_tokens([one for one in tokenizer.special_ids if one not in not_special])
    coder.add_tokens([tokenizers.AddedToken(one, special=False) for one in not_special])
    return coder.to_str()


def directory(path, vocabulary, saved_as, **files):
    """A directory with a vocabulary and other files: tokenizer_config={"a": 1}, template=".."."""
    path.mkdir(exist_ok=True)
    if isinstance(vocabulary, str):
        (path / saved_as).write_text(vocabulary, encoding="utf-8")
    else:
        shutil.copyfile(vocabulary, path / saved_as)
    for name, content in files.items():
        if name == "template":
            (path / "chat_template.jinja").write_text(content, encoding="utf-8")
        else:
            (path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return path
