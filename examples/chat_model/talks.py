"""Makes small talk to train a chat model on, and a vocabulary for it: nothing is downloaded.

    python examples/chat_model/talks.py [--out runs/talks]

`talks.jsonl` has a conversation a line, in ChatGLM2's format:

    {"text": "[Round 1]\\n\\n问：2加3等于几？\\n\\n答：2加3等于5。"}

Its end is the end of an answer, so a model trained on it ends its answers. Beside it lie
`tokenizer.model`, trained on these lines, and `glm_tokenizer.json`, which says that its kind is
ChatGLM2's.
"""

import argparse
import json
import random
from pathlib import Path

Talk = list[tuple[str, str]]  # questions and their answers

CAPITALS = {
    "中国": ("北京", "China", "Beijing"),
    "法国": ("巴黎", "France", "Paris"),
    "日本": ("东京", "Japan", "Tokyo"),
    "英国": ("伦敦", "Britain", "London"),
    "德国": ("柏林", "Germany", "Berlin"),
    "俄国": ("莫斯科", "Russia", "Moscow"),
    "埃及": ("开罗", "Egypt", "Cairo"),
    "意大利": ("罗马", "Italy", "Rome"),
}
WORDS = {
    "苹果": "apple", "水": "water", "月亮": "moon", "太阳": "sun", "书": "book",
    "猫": "cat", "狗": "dog", "山": "mountain", "河": "river", "朋友": "friend",
}  # fmt: skip
OPPOSITES = {
    "big": "small", "hot": "cold", "day": "night", "up": "down", "old": "new",
    "大": "小", "热": "冷", "白天": "黑夜", "上": "下", "旧": "新",
}  # fmt: skip
# Of poems of the Tang dynasty.
LINES = {
    "床前明月光": "疑是地上霜",
    "举头望明月": "低头思故乡",
    "白日依山尽": "黄河入海流",
    "欲穷千里目": "更上一层楼",
    "春眠不觉晓": "处处闻啼鸟",
    "夜来风雨声": "花落知多少",
    "红豆生南国": "春来发几枝",
    "千山鸟飞绝": "万径人踪灭",
}
NAMES = ("小明", "小红", "李白", "王芳", "张伟", "Anna", "Ben", "Clara", "David", "Emma")
TALK = {
    "你好": "你好！有什么可以帮你？",
    "你好！": "你好！有什么可以帮你？",
    "Hello": "Hello! How can I help you?",
    "Hello!": "Hello! How can I help you?",
    "你是谁？": "我是一个很小的语言模型。",
    "Who are you?": "I am a very small language model.",
    "谢谢": "不客气。",
    "Thank you": "You are welcome.",
    "再见": "再见！",
    "Goodbye": "Goodbye!",
}


def one_round(draw: random.Random) -> tuple[str, str]:
    """A question that needs no earlier one, and its answer."""
    country = draw.choice(list(CAPITALS))
    capital, name, city = CAPITALS[country]
    word = draw.choice(list(WORDS))
    opposite = draw.choice(list(OPPOSITES))
    line = draw.choice(list(LINES))
    a, b = draw.randrange(10), draw.randrange(10)
    return draw.choice(
        [
            (f"{country}的首都是哪里？", f"{country}的首都是{capital}。"),
            (f"What is the capital of {name}?", f"The capital of {name} is {city}."),
            (f"{word}用英语怎么说？", f"{word}的英语是{WORDS[word]}。"),
            (f"{opposite}的反义词是什么？", f"{opposite}的反义词是{OPPOSITES[opposite]}。"),
            (f"{line}的下一句是什么？", f"{LINES[line]}。"),
            (f"{a}加{b}等于几？", f"{a}加{b}等于{a + b}。"),
            (f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}."),
            draw.choice(list(TALK.items())),
        ]
    )


def talk(draw: random.Random) -> Talk:
    """One round, two, ..; each is the last with probability 0.6, whatever was said in it.

    So the most probable token behind an answer is the one that ends it. A name that was given is
    often asked for.
    """
    rounds: Talk = []
    name = None
    while not rounds or draw.random() > 0.6:
        chance = draw.random()
        if name is not None and chance < 0.5:
            rounds.append(
                draw.choice(
                    [
                        ("我叫什么？", f"你叫{name}。"),
                        ("What is my name?", f"Your name is {name}."),
                    ]
                )
            )
        elif name is None and chance < 0.4:
            name = draw.choice(NAMES)
            rounds.append(
                draw.choice(
                    [
                        (f"我叫{name}。", f"你好，{name}！"),
                        (f"My name is {name}.", f"Hello, {name}!"),
                    ]
                )
            )
        else:
            rounds.append(one_round(draw))
    return rounds


def written(talk: Talk) -> str:
    """A talk as ChatGLM2 reads it."""
    return "\n\n".join(f"[Round {i}]\n\n问：{q}\n\n答：{a}" for i, (q, a) in enumerate(talk, 1))


def main(argv: list[str] | None = None) -> Path:
    """Returns the directory."""
    import sentencepiece

    parser = argparse.ArgumentParser(description="Makes small talk to train a chat model on.")
    parser.add_argument("--out", type=Path, default=Path("runs/talks"))
    parser.add_argument("--count", type=int, default=12000, help="of talks")
    args = parser.parse_args(argv)

    draw = random.Random(0)
    texts = [written(talk(draw)) for _ in range(args.count)]
    args.out.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps({"text": text}, ensure_ascii=False) + "\n" for text in texts)
    (args.out / "talks.jsonl").write_text("".join(lines), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        # Line by line: a newline is a byte, as in ChatGLM2's own, and no part of another token.
        sentence_iterator=(line for text in texts for line in text.split("\n") if line),
        model_prefix=str(args.out / "tokenizer"),
        model_type="bpe",
        vocab_size=800,
        byte_fallback=True,
        character_coverage=1.0,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        minloglevel=2,
    )
    (args.out / "tokenizer.vocab").unlink()
    (args.out / "glm_tokenizer.json").write_text('{"kind": "chatglm2"}\n')
    return args.out


if __name__ == "__main__":
    print(main())
