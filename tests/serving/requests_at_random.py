"""Requests of every kind, good ones and broken ones, from a seed: for tests that nothing fails."""

import json
import random

ROUTES = ("/v1/chat/completions", "/v1/completions")
USER = {"role": "user", "content": "hello"}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
# Values of any type, some at the edges of theirs.
ODD = [
    *[None, True, False, 0, 1, -1, 2**31, 2**63, -(2**70), 10**400, 0.5, -0.0, 1e308, 1e-320],
    *["", "a", "\x00", "床前", "😀" * 50, "x" * 5000, "[MASK]<|user|>", "../../etc/passwd"],
    *[[], {}, [[]], [None], [1, "a"], [[1], [2]], {"a": {"b": [1]}}, [0] * 300, ["a"] * 100],
]
CHAT = {
    "messages": [[USER], [{"role": "system", "content": "x"}, USER], [USER] * 9],
    "tools": [[TOOL], []],
    "tool_choice": ["none", "auto"],
    "logprobs": [True, False],
    "top_logprobs": [0, 3],
    "max_completion_tokens": [1, 4],
}
TEXT = {
    "prompt": ["a", ["a", "b"], [97, 98], [[97], [98]], ""],
    "echo": [True, False],
    "logprobs": [0, 1, 5],
    "best_of": [1],
}
COMMON = {
    "model": ["m"],
    "max_tokens": [1, 3],
    "temperature": [0, 0.7, 1.5],
    "top_p": [0.3, 1],
    "top_k": [0, 5, -1],
    "n": [1, 2],
    "seed": [0, 7],
    "stop": ["a", ["b", "cd"]],
    "stream": [True, False],
    "repetition_penalty": [1, 1.2],
    "min_tokens": [0, 1],
    "frequency_penalty": [0],
    "user": ["me"],
}
# What is put among the bytes of a text.
BYTES = [b"\x00", b"\xff", b"{", b"}", b"[", b'"', b"\\", b"\\ud800", b"NaN", b",", b"1e999", b"\n"]


def request(seed):
    """(route, body in bytes, headers) of a request; of equal seeds equal ones."""
    draws = random.Random(seed)
    route = draws.choice(ROUTES)
    fields = {**COMMON, **(CHAT if "chat" in route else TEXT)}
    body = {}
    for name, values in fields.items():
        if draws.random() < 0.3 or name in ("messages", "prompt", "max_tokens"):
            body[name] = draws.choice(values)
    for _ in range(draws.choice([0, 0, 1, 1, 2])):
        _change(body, fields, draws)
    data = json.dumps(body).encode()
    if draws.random() < 0.15:
        data = _broken(data, draws)
    kind = draws.choice(["application/json"] * 20 + ["text/plain", ""])
    return route, data, {"Content-Type": kind}


def _change(body, fields, draws):
    """Puts an odd value somewhere in a body, takes a field away, or adds one that is unknown."""
    what = draws.random()
    if what < 0.1:
        body.pop(draws.choice(list(body)), None)
    elif what < 0.2:
        body["".join(draws.choices("abcdef_", k=5))] = draws.choice(ODD)
    elif what < 0.7 or "messages" not in body:
        body[draws.choice(list(fields))] = draws.choice(ODD)
    else:
        messages = json.loads(json.dumps(body["messages"]))
        if isinstance(messages, list) and messages and isinstance(messages[0], dict):
            name = draws.choice(["role", "content", "name", "tool_calls", "tool_call_id", "x"])
            draws.choice(messages)[name] = draws.choice([*ODD, "assistant", "tool", [TOOL]])
        body["messages"] = messages


def _broken(data, draws):
    """The bytes with a few of them changed, left out or put in."""
    found = bytearray(data)
    for _ in range(draws.randint(1, 4)):
        at = draws.randrange(len(found) + 1)
        if draws.random() < 0.5:
            found[at : at + draws.randint(0, 3)] = draws.choice(BYTES)
        else:
            del found[at : at + draws.randint(1, 20)]
    return bytes(found)
