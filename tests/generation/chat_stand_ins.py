"""A chat format of bytes, and small models that speak it: for tests of chat."""

import jax

from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.errors import UserError
from glm_jax.generation.conversation import Conversation
from glm_jax.generation.kept_row import Continued, KeptRow
from glm_jax.generation.language_model import LanguageModel
from glm_jax.interop.origin import Origin
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh
from glm_jax.special_tokens import SpecialTokens

GMASK, SOP, EOS, USER, SYSTEM, BOT = range(256, 262)
ROLES = {"user": USER, "tool": USER, "system": SYSTEM, "assistant": BOT}
VOCABULARY = 264


class ByteChat:
    """Bytes are ids; <id of the role> content .., the assistant's with an end id behind it."""

    vocab_size, carries_spaces, fingerprint = VOCABULARY, True, "bytes"
    special = SpecialTokens(262, GMASK, 263, SOP, EOS, GMASK, EOS, EOS)
    chat_end_ids = (EOS,)

    def encode(self, text, allow_special=False):
        return list(text.encode())

    def decode(self, ids, skip_special=False):
        return bytes(id_ for id_ in ids if id_ < 256).decode(errors="replace")

    def apply_chat_template(self, messages, tools=None, add_generation_prompt=True, tokenize=True):
        ids = [GMASK, SOP]
        for message in messages:
            if message["role"] not in ROLES:
                raise UserError(f"unknown role {message['role']!r}")
            ids += [ROLES[message["role"]], *self.encode(message["content"])]
            ids += [EOS] if message["role"] == "assistant" else []
        return [*ids, BOT]

    def read_answer(self, ids, tools=None):
        text = self.decode(ids).strip()
        answer = {"role": "assistant", "content": text}
        if tools and text.startswith("call "):
            function = {"name": text[5:], "arguments": {}}
            answer |= {"content": "", "tool_calls": [{"type": "function", "function": function}]}
        return answer


def model(tokenizer=None, **changes):
    """A model of random parameters that says anything."""
    shape = {
        "vocab_size": VOCABULARY,
        "num_layers": 2,
        "embed_dim": 32,
        "num_heads": 2,
        "position_encoding": "rotary",
        "max_positions": 256,
        "initializer_range": 0.3,
    }
    config = ModelConfig(**{**shape, **changes})
    params = create_params(config, make_mesh(MeshConfig(), jax.devices()[:1]), seed=0)
    return LanguageModel(config, params, tokenizer or ByteChat())


class ScriptedRow(KeptRow):
    """Instead of a model: says the next of some texts, whatever the prompt is.

    A text may be bytes, or a function of the last message; before each id `wait` is called.
    """

    def __init__(self, engine, *texts, wait=lambda: None):
        super().__init__(engine)
        self.texts, self.wait, self.asked = list(texts), wait, []

    def continue_(self, ids, limits, sampling, on_id=None, stop=lambda: False):
        self.asked.append(list(ids))
        said, text = [], self.texts.pop(0)
        if callable(text):
            text = text(bytes(ids[len(ids) - 1 - ids[::-1].index(USER) + 1 : -1]).decode())
        for id_ in text.encode() if isinstance(text, str) else text:
            self.wait()
            if stop():
                return Continued(said, "stopped")
            if len(said) == limits.max_new_tokens:
                return Continued(said, "length")
            said.append(id_)
            if on_id is not None:
                on_id(id_)
        return Continued(said, "end")


class Speaker:
    """A chat model without a model, for tests of what is around it: `lines` says what it says."""

    def __init__(self, max_positions=256, generation=None):
        self.config = ModelConfig(vocab_size=VOCABULARY, max_positions=max_positions)
        self.tokenizer, self.special = ByteChat(), ByteChat.special
        self._origin = Origin(generation=generation or {})

    def _engine(self):
        return self

    def __repr__(self):
        return "Speaker"


def speaking(*lines, wait=lambda: None, max_positions=256, **options):
    """A conversation in which these lines are said."""
    talk = Conversation(Speaker(max_positions), **options)
    talk._row = ScriptedRow(talk.model, *lines, wait=wait)
    return talk
