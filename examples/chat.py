"""Chats with a model: one answer, one that streams, then turns on a cache that is kept.

    python examples/chat_model/talks.py
    python -m glm_jax.train --config examples/chat_model/config.py --workdir runs/talker
    python examples/chat.py [--checkpoint DIR]

The first two lines make a small model in minutes; any ChatGLM or GLM-4 directory will do as well.
It prints

    {'role': 'assistant', 'content': '疑是地上霜。'}
    Hello|!| How| can| I| help| you|?|
    我叫小红。 -> 你好，小红！ (21 tokens in the cache)
    What is 3 plus 4? -> 3 plus 4 is 7. (52 tokens in the cache)
    我叫什么？ -> 你叫小红。 (72 tokens in the cache)
    ['我叫小红。', '你好，小红！', 'What is 3 plus 4?', '3 plus 4 is 7.']
"""

import argparse
from collections.abc import Sequence

import glm_jax


def main(argv: Sequence[str] | None = None) -> glm_jax.Conversation:
    """Returns the conversation."""
    parser = argparse.ArgumentParser(description="Chats with a model.")
    parser.add_argument("--checkpoint", default="runs/talker", help="a model with a chat format")
    parser.add_argument("--max_new_tokens", type=int, default=64)
    args = parser.parse_args(argv)
    lm = glm_jax.load(args.checkpoint)

    # One answer to a list of messages, as other libraries have it. Greedy by default.
    messages = [{"role": "user", "content": "床前明月光的下一句是什么？"}]
    print(lm.chat(messages, max_new_tokens=args.max_new_tokens))

    # Parts of the text while it is generated, and drawn: the same seed draws the same.
    lm.chat(
        "Hello!",
        max_new_tokens=args.max_new_tokens,
        on_text=lambda part: print(part, end="|", flush=True),
        temperature=0.8,
        top_p=0.8,
        seed=1,
    )
    print()

    # Turns. The prompt of each is the whole history; what the cache holds of it is not computed
    # again.
    talk = glm_jax.Conversation(lm, max_new_tokens=args.max_new_tokens)
    for message in ("我叫小红。", "What is 3 plus 4?", "我叫什么？"):
        answer = talk.say(message)
        print(f"{message} -> {answer.message['content']} ({talk.cached} tokens in the cache)")
    talk.undo()
    print([message["content"] for message in talk.messages])
    return talk


if __name__ == "__main__":
    main()
