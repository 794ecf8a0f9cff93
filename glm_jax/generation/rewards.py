"""What a reward model says of answers: `LanguageModel.rewards`.

[{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Hello!"}]  ->  1.7
"""

import functools
from collections.abc import Sequence

import jax

from glm_jax.batch import Batch
from glm_jax.config.model import ResolvedModel
from glm_jax.data.examples.example import Example, example_of, rows_of
from glm_jax.errors import UserError
from glm_jax.generation.cache import bucket
from glm_jax.losses.by_objective import hidden_of
from glm_jax.losses.pairs import at_last_tokens
from glm_jax.models.params import bind
from glm_jax.models.positions import check_positions
from glm_jax.models.trees import Params
from glm_jax.sharding.mesh import on_host, with_mesh_of_params
from glm_jax.tokenizers.messages import checked_messages, with_our_roles
from glm_jax.tokenizers.protocol import Messages, Tokenizer
from glm_jax.tokenizers.training_example import Conversation, without_format

# Rows that are computed at once.
_ROWS = 16


def rewards(
    config: ResolvedModel, params: Params, tokenizer: Tokenizer, conversations: Sequence[Messages]
) -> list[float]:
    """The reward of the last answer of each conversation, as training sees it.

    Args:
      config, params: of a model with a value head.
      tokenizer: of the model; it writes the conversations in its chat format.
      conversations: messages each, the last of them the assistant's.

    Returns:
      One number each; differences between answers to one prompt are what they mean.

    Raises:
      UserError: the model has no value head, a conversation does not end in an answer, or it is
        longer than the model's position table.
    """
    if not config.value_head:
        raise UserError("the model has no value head (model.value_head), so it gives no rewards")
    examples = [_example(config, tokenizer, one) for one in conversations]
    found: list[float] = []
    for start in range(0, len(examples), _ROWS):
        part = examples[start : start + _ROWS]
        length = bucket(max(map(len, part)))
        # Rows that are missing repeat the first, so that few shapes are compiled.
        missing = [part[0]] * (_ROWS - len(part) if start else 0)
        batch = rows_of([*part, *missing], length, tokenizer.special.pad)
        check_positions(batch, config)
        found += on_host(_rewards(params, batch, config=config))[: len(part)].tolist()
    return found


def _example(config: ResolvedModel, tokenizer: Tokenizer, conversation: Messages) -> Example:
    messages = with_our_roles(checked_messages(conversation))
    if messages[-1]["role"] != "assistant":
        raise UserError(
            f"a reward is of an answer: the last message must be the assistant's; it is of "
            f"{messages[-1]['role']!r}"
        )
    if not tokenizer.chat_end_ids:
        chat = Conversation.of(messages, None, "last", None, None)
        return example_of(without_format(tokenizer, chat), config.fills_blanks)
    made = tokenizer.training_example(messages, None, "last", None, None)
    return example_of(made, config.fills_blanks)


@with_mesh_of_params
@functools.partial(jax.jit, static_argnames="config")
def _rewards(params: Params, batch: Batch, *, config: ResolvedModel) -> jax.Array:
    model = bind(config, params)
    return at_last_tokens(batch, model.values(hidden_of(model, batch)))[:, 0]
