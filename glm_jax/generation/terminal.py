"""The loop of `python -m glm_jax.chat`: messages and commands in, answers out as they come.

> 床前明月光的下一句是什么？
疑是地上霜。
> /tokens
31 tokens so far of the model's 8,192; 30 in the cache

At a terminal Ctrl-C stops an answer, or discards the line that is being typed; at two in a row with
nothing typed the loop ends, as at Ctrl-D. From a pipe every line is a message or a command, answers
alone go to standard output, and what is refused makes the status 2.
"""

import json
import sys
from collections.abc import Callable
from contextlib import nullcontext

from glm_jax.cli.streams import read_line
from glm_jax.cli.typed import at_terminal, stops_by_interrupt, typed_line
from glm_jax.errors import UserError, did_you_mean
from glm_jax.files import write_whole
from glm_jax.generation.conversation import Answer, Conversation
from glm_jax.generation.kept_row import never
from glm_jax.paths import local
from glm_jax.tokenizers.messages import Message

COMMANDS = {
    "/clear": "forgets all turns; a system message stays",
    "/system TEXT": "puts a system message in front; without TEXT takes it away",
    "/undo": "takes the last message and its answer back",
    "/tokens": "says how long the conversation is",
    "/save FILE": "writes the messages as JSON",
    "/tool RESULT": "gives the result of a function that the model called",
    "/help": "lists the commands",
    "/exit": "ends, as Ctrl-D does",
}


class Session:
    """A conversation, as it is typed.

    Attributes:
      talk: the conversation.
      typed: whether a person reads along; False: input and output are a program's.
    """

    def __init__(self, talk: Conversation, typed: bool):
        self.talk, self.typed = talk, typed
        self._saved: set[str] = set()

    def run(self) -> int:
        """Until the end of the input; returns the status of the command."""
        status, interrupts = 0, 0
        while True:
            try:
                line = typed_line("> ") if self.typed else read_line()
                interrupts = 0
                if line is None:
                    if self.typed:
                        print()
                    return status
                if not self.take(line):
                    return status
            except UserError as error:
                sys.stdout.flush()
                print(f"error: {error}", file=sys.stderr, flush=True)
                status = 0 if self.typed else 2
            except KeyboardInterrupt:
                interrupts += 1
                if not self.typed:
                    raise
                print()
                if interrupts == 2:
                    raise
                print("(Ctrl-C once more ends, as Ctrl-D does)", flush=True)

    def take(self, line: str) -> bool:
        """A line: a message, or a command if it begins with a slash; False: it was the last.

        Raises:
          UserError: it is refused; nothing has changed.
        """
        name, _, rest = line.rstrip().partition(" ")
        if name == "/exit":
            return False
        if name.startswith("/"):
            self._command(name, rest.strip())
        elif line.strip():
            self._say(line.strip())
        return True

    def _command(self, name: str, rest: str) -> None:
        acts: dict[str, Callable[[str], None]] = {
            "/clear": lambda _: self.talk.clear(),
            "/system": self.talk.set_system,
            "/undo": self._undo,
            "/tokens": self._tokens,
            "/save": self._save,
            "/tool": self._tool,
            "/help": self._help,
        }
        if name not in acts:
            raise UserError(
                f"no command {name!r}{did_you_mean(name, acts)}; /help lists them, and a message "
                "that begins with a slash has a space in front"
            )
        acts[name](rest)

    def _say(self, message: str | Message) -> None:
        """Prints the answer to a message while it is generated."""
        with stops_by_interrupt() if self.typed else nullcontext(never) as stop:
            answer = self.talk.say(message, lambda text: print(text, end="", flush=True), stop)
            print(flush=True)
        if answer.dropped:
            turns = "oldest turn" if answer.dropped == 1 else f"{answer.dropped} oldest turns"
            context = f"beyond the context of {self.talk.context:,} tokens"
            self._note(f"{context}, dropped from the conversation: the {turns}")
        self._how_it_ended(answer)

    def _how_it_ended(self, answer: Answer) -> None:
        if answer.ended == "stopped":
            self._note("stopped" if answer.ids else "stopped; the message is taken back")
        elif answer.ended == "length":
            self._note(f"cut after {len(answer.ids):,} tokens")
        for call in answer.message.get("tool_calls") or ():
            function = json.dumps(call["function"], ensure_ascii=False)
            self._note(f"the model calls {function}; /tool RESULT goes on")

    def _undo(self, _: str) -> None:
        taken = self.talk.undo()
        if taken is None:
            raise UserError("nothing to undo: there is no message yet")
        self._note(f"taken back: {taken['content']}")

    def _tokens(self, _: str) -> None:
        used = f"{self.talk.length:,} tokens so far of the model's {self.talk.context:,}"
        print(f"{used}; {self.talk.cached:,} in the cache", flush=True)

    def _save(self, name: str) -> None:
        if not name:
            raise UserError("/save needs the name of a file: /save chat.json")
        path = local(name, "/save")
        if path.exists() and str(path) not in self._saved:
            raise UserError(f"{path} exists already; /save does not replace it")
        text = json.dumps(self.talk.messages, ensure_ascii=False, indent=2)
        try:
            write_whole(path, text + "\n")
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}") from error
        self._saved.add(str(path))
        self._note(f"{len(self.talk.messages)} messages in {path}")

    def _tool(self, result: str) -> None:
        if not self.talk.messages or not self.talk.messages[-1].get("tool_calls"):
            raise UserError("the model has not called a function; /tool gives the result of a call")
        self._say({"role": "tool", "content": result})

    def _help(self, _: str) -> None:
        width = max(map(len, COMMANDS))
        for name, does in COMMANDS.items():
            print(f"  {name:<{width}}  {does}")
        print("  Ctrl-C stops an answer; a line that begins with no slash is a message", flush=True)

    def _note(self, text: str) -> None:
        """Something about the conversation that is not part of it."""
        print(f"({text})", file=sys.stdout if self.typed else sys.stderr, flush=True)


def converse(talk: Conversation, about: str) -> int:
    """Holds a conversation on standard input and output; `about` is shown first to a person."""
    typed = at_terminal()
    if typed:
        print(f"{about}\n/help lists the commands, Ctrl-C stops an answer, Ctrl-D ends", flush=True)
    return Session(talk, typed).run()
