"""Models of a few parameters and the bundled vocabulary, and one that knows all answers."""

import functools

import jax
import numpy as np

from glm_jax.config import MeshConfig, ModelConfig
from glm_jax.generation.language_model import LanguageModel
from glm_jax.generation.scoring import TokenScores
from glm_jax.models.params import create_params
from glm_jax.sharding.mesh import make_mesh
from glm_jax.tokenizers.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer("bundled")
SPECIAL = TOKENIZER.special
SIZES = {
    "vocab_size": 7168,
    "num_layers": 1,
    "embed_dim": 16,
    "num_heads": 2,
    "max_positions": 64,
    "dropout_rate": 0.0,
}
BLANKS = ModelConfig(**SIZES)
CAUSAL = ModelConfig(**SIZES, position_encoding="rotary")


@functools.cache
def random_model(causal=False, seed=0):
    config = CAUSAL if causal else BLANKS
    mesh = make_mesh(MeshConfig(), jax.devices()[:1])
    return LanguageModel(config, create_params(config, mesh, seed), TOKENIZER)


class Oracle:
    """Stands for a model: answers texts that it is told; scores of ids are those of a table."""

    def __init__(self, config=BLANKS, tokenizer=TOKENIZER):
        self.config, self.tokenizer = config.resolved(), tokenizer
        self.chat_end_ids = [SPECIAL.eos]
        self.likely, self.said, self.asked = {}, {}, []

    def knows(self, prompt, text):
        """The answer to a prompt that holds this text."""
        self.said[prompt] = text

    def answer_of(self, ids):
        text = self.tokenizer.decode(ids, skip_special=False)
        return next(answer for prompt, answer in self.said.items() if prompt in text)

    def answer_scores(self, prompts, answers, unidirectional=False):
        self.asked += [(*pair, unidirectional) for pair in zip(prompts, answers, strict=True)]
        found = []
        for answer in answers:
            each = np.array([self.likely.get(id_, -1.0) for id_ in answer], np.float32)
            found.append(TokenScores(each, each > -1.0))
        return found

    def generate(self, prompts, max_new_tokens, eos_ids=None, **options):
        self.asked.append((max_new_tokens, eos_ids, options))
        return [self.tokenizer.encode(self.answer_of(ids)) for ids in prompts]

    def fill_blanks(self, rows, max_new_tokens, **options):
        self.asked.append((max_new_tokens, options))
        return [
            [self.tokenizer.encode(one) for one in self.answer_of(ids).split("|")] for ids in rows
        ]
