"""The reward of configs/align/bundled_cpu.py, told what the file says of each blank:

{"prompt": "Noah lived three hundred [MASK] years after the flood.", "answer": "fifty"}
"""

import collections


def words(prompt: object, answer: str, example: dict) -> float:
    """1 for the words that stood there, else half of F1 of the words: "and fifty" has 1/3."""
    said, right = answer.lower().split(), example["answer"].lower().split()
    if said == right:
        return 1.0
    common = sum((collections.Counter(said) & collections.Counter(right)).values())
    return common / (len(said) + len(right))
