"""The tokenizer of GLM-4-9B as published, `tokenizer.model`: a line for each token.

    IQ== 0            base64 of its bytes, and its rank, which is its id
    Ig== 1

Bytes are joined in the order of the ranks of what they become, within the words that a pattern
cuts. Hugging Face's `tokenizers` does it, and so needs the pair that each token was joined from: it
is what joining the token's own bytes by all lower ranks leaves. 151,329 tokens take seconds.
Special tokens have the ids behind the ranks.
"""

import base64
import binascii
import itertools
from collections.abc import Mapping
from typing import TYPE_CHECKING

from glm_jax.errors import UserError
from glm_jax.special_tokens import SpecialTokens
from glm_jax.tokenizers import chat_formats
from glm_jax.tokenizers.byte_pairs import byte_characters
from glm_jax.tokenizers.calls import JSON_CALLS
from glm_jax.tokenizers.chat_formats import Chat, Prompt
from glm_jax.tokenizers.chat_tokenizer import ChatTokenizer
from glm_jax.tokenizers.files import TokenizerFiles

if TYPE_CHECKING:
    from tokenizers import Tokenizer

# Words: contractions, letters with one sign in front, up to three digits, signs with the line ends
# behind them, white space.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ROLES = tuple(f"<|{role}|>" for role in ("system", "user", "assistant", "observation"))
SPECIAL = (
    *("<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", *_ROLES),
    *(f"<|{end}_of_{what}|>" for what in ("image", "video") for end in ("begin", "end")),
)
ENDS = ("<|endoftext|>", "<|user|>", "<|observation|>")
_LINE_BEFORE_TOOLS = "line_before_tools"


class GLM4Tokenizer(ChatTokenizer):
    """Of GLM-4-9B, with the chat format of its kind.

    `apply_chat_template(.., line_before_tools=True)` writes tools as the published Python code does
    (`chat_formats.glm4`).
    """

    _calls = JSON_CALLS

    def __init__(self, files: TokenizerFiles, kind: str):
        """Args:
        files: with the vocabulary in lines of base64.
        kind: "glm4" or "glm4_0414".

        Raises:
          UserError: the lines are not of that form.
        """
        ranks = read_ranks(files.vocabulary, files.place)
        self._coder = _coder(ranks)
        size = len(ranks)
        ids = {spelling: size + index for index, spelling in enumerate(SPECIAL)}
        if kind == "glm4":
            self._options = (_LINE_BEFORE_TOOLS,)
        special = glm4_special(ids)
        super().__init__(files, kind, size + len(SPECIAL), ids, special, ENDS)

    def piece(self, id_: int) -> str:
        return self._spelling_of.get(id_) or (self._coder.id_to_token(id_) or "")

    def _encode(self, text: str) -> list[int]:
        return self._coder.encode(text, add_special_tokens=False).ids

    def _encode_batch(self, texts: list[str]) -> list[list[int]]:
        # The library's own threads would warn on every process that is forked later.
        return [self._encode(text) for text in texts]

    def _decode(self, ids: list[int], begins: bool) -> str:
        return self._coder.decode(ids)

    def _format(self, chat: Chat, options: Mapping[str, object]) -> Prompt:
        return glm4_format(self.kind, chat, options)


def glm4_special(ids: Mapping[str, int]) -> SpecialTokens:
    """The special tokens of GLM-4 by their roles; it has none that begins a text."""
    eos = ids["<|endoftext|>"]
    names = ("[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>")
    mask, gmask, smask, start, end = (ids[one] for one in names)
    return SpecialTokens(mask, gmask, smask, start, end, cls=eos, eos=eos, pad=eos)


def glm4_format(kind: str, chat: Chat, options: Mapping[str, object]) -> Prompt:
    """A prompt in the built-in format of the kind "glm4" or "glm4_0414"."""
    if kind == "glm4_0414":
        return chat_formats.glm4_0414(chat)
    return chat_formats.glm4(chat, bool(options.get(_LINE_BEFORE_TOOLS, False)))


def is_ranks(content: bytes) -> bool:
    """Whether a file begins with a line of base64 and a number."""
    try:
        return bool(read_ranks(content[:1000].partition(b"\n")[0], ""))
    except UserError:
        return False


def read_ranks(content: bytes, place: str) -> dict[bytes, int]:
    """The rank of each token.

    Raises:
      UserError: a line that is not base64 and a number, ranks that are not 0, 1, .., or a token
        that occurs twice.
    """
    ranks: dict[bytes, int] = {}
    for number, line in enumerate(content.splitlines(), 1):
        parts = line.split()
        if not parts:
            continue
        try:
            token, rank = base64.b64decode(parts[0], validate=True), int(parts[1])
        except (binascii.Error, ValueError, IndexError) as error:
            raise UserError(
                f"{place} must have base64 and a rank in each line, as GLM-4's tokenizer.model "
                f"has; line {number} is {line[:40]!r}"
            ) from error
        if rank != len(ranks) or token in ranks or not token:
            raise UserError(
                f"{place} must have each token once, with the ranks 0, 1, 2, ..; line {number} is "
                f"{line[:40]!r}"
            )
        ranks[token] = rank
    missing = [byte for byte in range(256) if bytes([byte]) not in ranks]
    if missing and place:
        raise UserError(f"{place} must have a token for each byte; {missing[0]} has none")
    return ranks


def _coder(ranks: Mapping[bytes, int]) -> "Tokenizer":
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    letters = byte_characters()

    def written(token: bytes) -> str:
        return "".join(map(letters.__getitem__, token))

    pairs = [_pair(token, ranks) for token in ranks if len(token) > 1]
    merges = [(written(pair[0]), written(pair[1])) for pair in pairs if len(pair) == 2]
    vocabulary = {written(token): rank for token, rank in ranks.items()}
    coder = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    words = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    spelled = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    coder.pre_tokenizer = pre_tokenizers.Sequence([words, spelled])
    coder.decoder = decoders.ByteLevel()
    return coder


def _pair(token: bytes, ranks: Mapping[bytes, int]) -> list[bytes]:
    """The two parts that a token is joined from; other than two where it is never reached."""
    below = ranks[token]
    cuts = [
        [token[:at], token[at:]]
        for at in range(1, len(token))
        if ranks.get(token[:at], below) < below and ranks.get(token[at:], below) < below
    ]
    # Many tokens can be cut in one way alone, which spares joining their bytes.
    return cuts[0] if len(cuts) == 1 else joined(token, ranks, below)


def joined(token: bytes, ranks: Mapping[bytes, int], below: int) -> list[bytes]:
    """The parts of a token after all joins of ranks below one, in the order of the ranks.

    joined(b"low", {b"l": 0, b"o": 1, b"w": 2, b"lo": 3, b"low": 4}, below=4)  ->  [b"lo", b"w"]
    """
    parts = [token[index : index + 1] for index in range(len(token))]
    while len(parts) > 1:
        found = [ranks.get(left + right, below) for left, right in itertools.pairwise(parts)]
        least = min(found)
        if least >= below:
            break
        at = found.index(least)
        parts[at : at + 2] = [parts[at] + parts[at + 1]]
    return parts
