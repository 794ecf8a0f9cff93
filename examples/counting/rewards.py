"""The reward of examples/grpo.py: 1 for the right word, else 0; it is told what the file says:

{"prompt": "After three comes", "answer": "four"}
"""


def exact(prompt: object, answer: str, example: dict) -> float:
    return float(answer.strip().lower() == example["answer"])
