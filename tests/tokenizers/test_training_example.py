"""Golden rows of fine-tuning, exact, and the other rules of what is learnt."""

import itertools

import pytest

import glm_jax
from glm_jax.errors import UserError
from glm_jax.tokenizers.framing import blanked_ids
from glm_jax.tokenizers.training_example import (
    Conversation,
    each_answer,
    learns_one_answer,
    without_format,
)
from tests.tokenizers.golden_chat import (
    ICE_TEXT,
    PIECES,
    RANKS,
    WEATHER,
    directory,
    fast_json,
    messages_of,
    user,
    vectors,
)

FILES = {"chatglm": ICE_TEXT, "chatglm2": PIECES, "chatglm3": PIECES, "glm4": RANKS}
SAID = [*user("hi"), {"role": "assistant", "content": "yes"}]
TWICE = [*SAID, *user("go on"), {"role": "assistant", "content": "no"}]


@pytest.fixture(scope="module")
def tokenizers():
    return {kind: glm_jax.load_tokenizer(path, kind=kind) for kind, path in FILES.items()}


def unpadded(row, pad):
    """The golden ids and labels up to the last that is no padding."""
    size = len(row["input_ids"])
    while row["input_ids"][size - 1] == pad and row["labels"][size - 1] == -100:
        size -= 1
    return row["input_ids"][:size], row["labels"][:size]


def conversation(row):
    """The messages of a golden row, and its lengths."""
    if "query" in row:
        said = messages_of({**row, "history": row["history"] or []})
        said.append({"role": "assistant", "content": row["response"]})
        return said, (row["max_source_length"], row["max_target_length"])
    lengths = (
        (row["max_input_length"], row["max_output_length"]) if "max_input_length" in row else ()
    )
    return row.get("conversations") or row["messages"], lengths


GOLDEN = [
    (name, kind, number)
    for name, kind, count in (
        ("chatglm1_chat", "chatglm", 3),
        ("chatglm2_chat", "chatglm2", 3),
        ("chatglm3_chat", "chatglm3", 3),
        ("glm4_chat", "glm4", 2),
    )
    for number in range(count)
]


@pytest.mark.parametrize(("name", "kind", "number"), GOLDEN)
def test_the_golden_rows(name, kind, number, tokenizers):
    row = vectors(name)["finetune"][number]
    messages, lengths = conversation(row)
    loss_on = "last" if "combine=True" in row.get("rule", "") else "published"
    made = tokenizers[kind].training_example(messages, None, loss_on, *lengths)
    pad = tokenizers[kind].special.pad if "query" in row else None
    assert (made.ids, made.labels) == unpadded(row, pad)


def learnt(tokenizer, made):
    """What is learnt, as text; apart where something lies between."""
    runs = itertools.groupby(zip(made.ids, made.learnt, strict=True), key=lambda pair: pair[1])
    return [tokenizer.decode([id_ for id_, _ in run]) for use, run in runs if use]


def test_what_is_learnt_of_generation_3(tokenizers):
    tokenizer = tokenizers["chatglm3"]
    call = {"role": "assistant", "metadata": "get_weather", "content": "call"}
    result = {"role": "observation", "content": "22"}
    messages = [*user("hi"), call, result, {"role": "assistant", "content": "warm"}]

    def of(loss_on):
        return learnt(tokenizer, tokenizer.training_example(messages, [WEATHER], loss_on))

    assert of("assistant") == ["get_weather\n call<|observation|>", "\n warm</s>"]
    # As published, everything but the system's and the user's.
    assert of("published") == ["get_weather\n call<|observation|>\n 22<|assistant|>\n warm</s>"]
    assert of("last") == ["\n warm</s>"]
    whole = tokenizer.training_example(messages, [WEATHER], "all")
    assert whole.learnt == [False, False, *[True] * (len(whole.ids) - 2)]


def test_what_is_learnt_of_glm_4(tokenizers):
    tokenizer = tokenizers["glm4"]
    messages = [*TWICE[:2], {"role": "observation", "content": "22"}, TWICE[3]]
    assert learnt(tokenizer, tokenizer.training_example(messages)) == [
        "\nyes<|observation|>",
        "\nno<|user|>",
    ]
    assert learnt(tokenizer, tokenizer.training_example(messages, loss_on="last")) == ["no<|user|>"]


def test_one_answer_an_example_in_generations_1_and_2(tokenizers):
    for kind, end in (("chatglm", "<eop>"), ("chatglm2", "</s>")):
        tokenizer = tokenizers[kind]
        assert learns_one_answer(tokenizer)
        with pytest.raises(UserError, match="has one answer; got 2 and loss_on='assistant'"):
            tokenizer.training_example(TWICE, loss_on="assistant")
        parts = [tokenizer.training_example(part, None, "last") for part in each_answer(TWICE)]
        assert [learnt(tokenizer, part) for part in parts] == [[f"yes{end}"], [f"no{end}"]]
        # What precedes an answer is what the model is given to write it.
        prompt = tokenizer.apply_chat_template(TWICE[:3])
        assert parts[1].ids[: len(prompt)] == prompt
        with pytest.raises(UserError, match="the last message must be the assistant's"):
            tokenizer.training_example([*SAID, *user("x")])
    made = tokenizers["chatglm"].training_example(SAID, loss_on="last")
    prompt = len(tokenizers["chatglm"].encode("hi"))
    assert (made.prefix, made.blank) == (prompt + 1, prompt)
    assert made.ids[made.blank] == tokenizers["chatglm"].special.gmask
    with pytest.raises(UserError, match="loss_on='all' does not go with this tokenizer"):
        tokenizers["chatglm"].training_example(SAID, loss_on="all")
    everything = tokenizers["chatglm2"].training_example(SAID, loss_on="all").learnt
    assert everything == [False, False, *[True] * (len(everything) - 2)]


def test_without_a_chat_format():
    tokenizer = glm_jax.load_tokenizer("bundled")
    with pytest.raises(UserError, match="has no chat format"):
        tokenizer.training_example(SAID)

    def of(*options, tools=None):
        return without_format(tokenizer, Conversation.of(SAID, tools, *options))

    special = tokenizer.special
    made = of("published", None, None)
    hi, yes = tokenizer.encode("hi"), tokenizer.encode("yes")
    assert made.ids == [special.cls, *hi, special.gmask, special.start, *yes, special.end]
    assert (made.prefix, made.blank) == (len(hi) + 2, len(hi) + 1)
    assert made.learnt == [False] * (len(hi) + 3) + [True] * (len(yes) + 1)
    # Of 3 ids of the prompt [CLS] and the blank are two.
    cut = of("published", 3, 3)
    assert cut.ids == [special.cls, hi[0], special.gmask, special.start, yes[0], special.end]
    with pytest.raises(UserError, match="no chat format, so none for tools"):
        of("published", None, None, tools=[WEATHER])


def test_without_a_chat_format_a_blank_in_the_text_is_filled():
    """[CLS] Noah lived [MASK] years. eos start ▁fifty end, and as `lm.fill` is asked."""
    tokenizer = glm_jax.load_tokenizer("bundled")
    special = tokenizer.special

    def of(text, *lengths):
        said = [*user(text), {"role": "assistant", "content": "fifty"}]
        return without_format(tokenizer, Conversation.of(said, None, "last", *lengths))

    made = of("Noah lived [MASK] years.", None, None)
    part_a = blanked_ids(tokenizer, "Noah lived [MASK] years.")
    before, after = tokenizer.encode("Noah lived"), tokenizer.encode("lived years.")[1:]
    assert part_a == [special.cls, *before, special.mask, *after, special.eos]
    assert made.ids == [*part_a, special.start, *tokenizer.encode("fifty"), special.end]
    assert (made.prefix, made.blank) == (len(part_a), len(before) + 1)
    assert made.learnt == [False] * (len(part_a) + 1) + [True] * 2
    # At the end a [gMASK] is what it is without one.
    assert of("Noah lived [gMASK]", None, None) == of("Noah lived", None, None)
    assert of("Noah lived [sMASK]", None, None).ids[made.blank] == special.smask
    assert of("Noah lived [MASK] years.", len(part_a), 9) == made
    with pytest.raises(UserError, match=f"it has {len(part_a)} ids .* max_source_length=5"):
        of("Noah lived [MASK] years.", 5, 9)
    with pytest.raises(UserError, match="one blank at most, which the answer fills; got 2: 'No"):
        of("Noah [MASK] for [MASK] years.", None, None)


CHATML = (
    "{% for m in messages %}{{ '<|user|>' if m.role == 'user' else '<|assistant|>' }}"
    "{{ m.content }}<|endoftext|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKED = (
    "{% for m in messages %}<|{{ m.role }}|>{% if m.role == 'assistant' %}{% generation %}"
    "{{ m.content }}<|endoftext|>{% endgeneration %}{% else %}{{ m.content }}{% endif %}"
    "{% endfor %}"
)
# It leaves the thoughts of all but the last answer out.
FORGETS = CHATML.replace(
    "{{ m.content }}", "{{ m.content if loop.last else m.content.split('=')[-1] }}"
)


def of_template(path, template):
    vocabulary = fast_json(not_special=("<|observation|>",))
    files = {"template": template, "tokenizer_config": {"eos_token": "<|endoftext|>"}}
    return glm_jax.load_tokenizer(directory(path, vocabulary, "tokenizer.json", **files))


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_templates_of_others(tmp_path, template):
    tokenizer = of_template(tmp_path, template)
    assert tokenizer.kind == "huggingface"
    made = tokenizer.training_example(TWICE)
    assert learnt(tokenizer, made) == ["yes<|endoftext|>", "no<|endoftext|>"]
    assert made.ids == tokenizer.apply_chat_template(TWICE, add_generation_prompt=False)
    last = tokenizer.training_example(TWICE, loss_on="last")
    assert learnt(tokenizer, last) == ["no<|endoftext|>"]
    everything = tokenizer.training_example(TWICE, loss_on="all").learnt
    assert everything == [False, *[True] * (len(made.ids) - 1)]
    # What a message spells is text, as everywhere.
    spelled = [*user("hi"), {"role": "assistant", "content": "<|assistant|>a<|endoftext|>"}]
    made = tokenizer.training_example(spelled)
    assert learnt(tokenizer, made) == ["<|assistant|>a<|endoftext|><|endoftext|>"]


def test_a_template_that_writes_answers_in_two_ways_is_refused(tmp_path):
    tokenizer = of_template(tmp_path, FORGETS)
    messages = [*user("hi"), {"role": "assistant", "content": "hm=yes"}, *TWICE[2:]]
    with pytest.raises(
        UserError, match=r"in another way where more follows; take loss_on=\"last\""
    ):
        tokenizer.training_example(messages)
    last = tokenizer.training_example(messages, loss_on="last")
    assert learnt(tokenizer, last) == ["no<|endoftext|>"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"messages": user("hi")}, "has no message of the assistant"),
        ({"loss_on": "answers"}, "loss_on must be one of"),
        ({"max_source_length": 8}, "must be given together; got 8 and None"),
        ({"max_source_length": 2, "max_target_length": 8}, "max_source_length must be at least 3"),
        ({"messages": [*SAID, {"role": "robot", "content": "x"}]}, "must have a role of"),
    ],
)
def test_what_is_refused(change, message, tokenizers):
    with pytest.raises(UserError, match=message):
        tokenizers["chatglm3"].training_example(**({"messages": SAID} | change))


def test_the_format_has_a_fingerprint(tmp_path, tokenizers):
    assert tokenizers["chatglm2"].chat_fingerprint != tokenizers["chatglm3"].chat_fingerprint
    first = of_template(tmp_path / "a", CHATML)
    assert first.chat_fingerprint != of_template(tmp_path / "b", MARKED).chat_fingerprint
    assert first.fingerprint == of_template(tmp_path / "b", MARKED).fingerprint


def test_thoughts_that_a_format_leaves_out_are_refused():
    tokenizer = glm_jax.load_tokenizer(RANKS, kind="glm4_0414")
    thinks = [*user("hi"), {"role": "assistant", "content": "<think>hm</think>yes"}]
    with pytest.raises(UserError, match="leaves the thoughts of an answer out"):
        tokenizer.training_example(thinks)
