"""What every tokenizer has, whatever its kind; `glm_jax.load_tokenizer` makes one."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens

if TYPE_CHECKING:
    from glm_jax.json_files import JsonObject
    from glm_jax.tokenizers.training_example import TrainingExample

# Written by `save` where the vocabulary does not say all (`glm_jax.tokenizers.settings`).
SETTINGS = "glm_tokenizer.json"

# Messages of a chat, or descriptions of tools, as users give them.
Messages = Iterable[Mapping[str, object]]


class Tokenizer(Protocol):
    """What every tokenizer has.

    Attributes:
      kind: "sentencepiece" (trained for this package), "glm2021", "chatglm", "chatglm2",
        "chatglm3", "glm4", "glm4_0414" or "huggingface".
      vocab_size: V, number of ids; models may pad it.
      special: the ids of the special tokens that objectives and blanks use.
      fingerprint: SHA-256 of what ids depend on, in hexadecimal.
      carries_spaces: whether the space in front of a word is part of its token.
      frames_texts: whether [CLS] and eos stand around a text with blanks.
      chat_end_ids: ids that end an answer in a chat; () without a chat format.
    """

    @property
    def kind(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def special(self) -> SpecialTokens: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def carries_spaces(self) -> bool: ...
    @property
    def frames_texts(self) -> bool: ...
    @property
    def chat_end_ids(self) -> tuple[int, ...]: ...

    def encode(self, text: str, allow_special: bool = False) -> list[int]:
        """The ids of a text; with `allow_special`, spellings of special tokens become these."""
        ...

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """`encode` of many texts, without special tokens."""
        ...

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """The text of ids; special tokens are spelled, or left out."""
        ...

    def sentence_ends(self) -> np.ndarray:
        """[V] bool: which ids end a sentence."""
        ...

    def save(self, directory: str | Path) -> None:
        """Writes its files into an existing directory; `load_tokenizer` makes the same of them."""
        ...

    def apply_chat_template(
        self,
        messages: Messages,
        tools: Messages | None = None,
        add_generation_prompt: bool = True,
        tokenize: bool = True,
        **variables: object,
    ) -> list[int] | str:
        """The prompt of a chat (`ChatTokenizer.apply_chat_template`).

        Raises:
          UserError: among others, where there is no chat format.
        """
        ...

    def read_answer(self, ids: Sequence[int] | str, tools: Messages | None = None) -> "JsonObject":
        """The message that an answer is (`ChatTokenizer.read_answer`)."""
        ...

    def training_example(
        self,
        messages: Messages,
        tools: Messages | None = None,
        loss_on: str = "published",
        max_source_length: int | None = None,
        max_target_length: int | None = None,
    ) -> "TrainingExample":
        """A conversation as the model is tuned on it: its ids, and which of them are learnt.

            ChatGLM3    ids     [gMASK] sop <|user|> ▁ \\n ▁hi <|assistant|> ▁ \\n ▁yes </s>
                        learnt                                                x  x   x    x

        Args:
          messages, tools: as of `apply_chat_template`; the assistant's answers included.
          loss_on: "published": the rule of the model's own fine-tuning code
            (`glm_jax.tokenizers.training_example`), of a template of others "assistant"; "all": all
            but the first ids, of models without part A; "assistant": what the assistant says, and
            the id that ends it; "last": its last message alone.
          max_source_length, max_target_length: the published limits, both or none, which cut.

        Raises:
          UserError: no answer to learn; messages or a template for which there is no rule.
        """
        ...

    @property
    def chat_fingerprint(self) -> str:
        """SHA-256 of what a chat's text depends on beside the vocabulary; "" without a format."""
        ...


class WithoutChat:
    """Those parts of a tokenizer that has no chat format: chats are refused, in one sentence."""

    chat_end_ids: tuple[int, ...] = ()
    chat_fingerprint: str = ""
    _name: str

    def apply_chat_template(
        self,
        messages: Messages,
        tools: Messages | None = None,
        add_generation_prompt: bool = True,
        tokenize: bool = True,
        **variables: object,
    ) -> list[int] | str:
        """Raises UserError: there is no chat format."""
        raise self._refusal()

    def read_answer(self, ids: Sequence[int] | str, tools: Messages | None = None) -> "JsonObject":
        """Raises UserError: there is no chat format."""
        raise self._refusal()

    def training_example(
        self,
        messages: Messages,
        tools: Messages | None = None,
        loss_on: str = "published",
        max_source_length: int | None = None,
        max_target_length: int | None = None,
    ) -> "TrainingExample":
        """Raises UserError: there is no chat format."""
        raise self._refusal()

    def _refusal(self) -> UserError:
        return UserError(
            f"the tokenizer of {self._name} has no chat format; those of ChatGLM and GLM-4 have "
            "one, and a tokenizer.json with a chat_template"
        )
