"""The files of a tokenizer: a vocabulary, and what stands beside it about special tokens and chat.

tokenizer.model | ice_text.model | tokenizer.json        the vocabulary
tokenizer_config.json                                    special tokens, chat_template
chat_template.jinja                                      wins over the one in there
glm_tokenizer.json                                       the kind (`settings`)
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path

from glm_jax.errors import UserError
from glm_jax.files import write_whole
from glm_jax.json_files import MAX_BYTES, JsonObject, parse_object, read_object, shown
from glm_jax.remote import as_path
from glm_jax.tokenizers.protocol import SETTINGS
from glm_jax.tokenizers.templates import ChatTemplate

ICE_TEXT, MODEL, FAST = "ice_text.model", "tokenizer.model", "tokenizer.json"
CONFIG, TEMPLATE = "tokenizer_config.json", "chat_template.jinja"
# Beside a vocabulary; kept with it, whatever of them is read.
_BESIDE = (CONFIG, TEMPLATE, "special_tokens_map.json", "added_tokens.json")


@dataclasses.dataclass(frozen=True)
class TokenizerFiles:
    """What a tokenizer was read from.

    Attributes:
      vocabulary: content of the vocabulary's file.
      saved_as: name under which it is saved.
      beside: content of the others, by name.
      place: path of the file or directory, for errors.
      model_config: config.json of the model beside it; empty without one.
    """

    vocabulary: bytes
    saved_as: str
    beside: Mapping[str, bytes] = dataclasses.field(default_factory=dict)
    place: str = "the tokenizer"
    model_config: JsonObject = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, file: Path, saved_as: str) -> "TokenizerFiles":
        """The vocabulary in a file, and what lies beside it.

        Raises:
          UserError: a file cannot be read.
        """
        directory = file.parent
        try:
            beside = {
                name: (directory / name).read_bytes()
                for name in _BESIDE
                if (directory / name).is_file()
            }
            content = file.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read the tokenizer in {directory}: {error}") from error
        if len(content) > MAX_BYTES:
            raise UserError(f"{file} has {len(content):,} bytes; at most {MAX_BYTES:,} are read")
        config = directory / "config.json"
        return cls(
            content, saved_as, beside, str(file), read_object(config) if config.is_file() else {}
        )

    @property
    def config(self) -> JsonObject:
        """The content of tokenizer_config.json; empty without one.

        Raises:
          UserError: it is no JSON object.
        """
        return parse_object(self._text(CONFIG), CONFIG) if CONFIG in self.beside else {}

    def templates(self) -> dict[str, ChatTemplate]:
        """The chat templates by name: "default", and others that the checkpoint has.

        Raises:
          UserError: not UTF-8, or chat_template is neither a text nor a list of named ones.
        """
        if TEMPLATE in self.beside:
            return {"default": ChatTemplate(self._text(TEMPLATE), self._named(TEMPLATE))}
        given = self.config.get("chat_template")
        if given is None:
            return {}
        name = self._named(f"chat_template in {CONFIG}")
        if isinstance(given, str):
            return {"default": ChatTemplate(given, name)}
        found = {}
        for one in given if isinstance(given, list) else [given]:
            source = one.get("template") if isinstance(one, dict) else None
            if not isinstance(source, str) or not isinstance(one.get("name"), str):
                raise UserError(
                    f"{name} must be a text, or a list of "
                    f'{{"name": .., "template": ..}}; got {shown(given)}'
                )
            found[one["name"]] = ChatTemplate(source, f"{name}, {one['name']!r},")
        return found

    def save(self, directory: str | Path, kind: str | None) -> None:
        """Writes the files into an existing directory, and the kind where it is one of `KINDS`."""
        for name, content in {self.saved_as: self.vocabulary, **self.beside}.items():
            write_whole(as_path(directory) / name, content)
        if kind is not None:
            write_whole(as_path(directory) / SETTINGS, json.dumps({"kind": kind}) + "\n")

    def _named(self, name: str) -> str:
        return f"the {name} of {self.place}"

    def _text(self, name: str) -> str:
        try:
            return self.beside[name].decode()
        except UnicodeDecodeError as error:
            raise UserError(
                f"cannot read the {name} of {self.place}: it is not UTF-8 ({error.reason})"
            ) from error
