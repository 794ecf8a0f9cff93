"""The prompts of the generations, as their published code writes them.

A prompt is a list of special tokens, by role, and texts; neighbouring texts are encoded apart.

    ChatGLM-6B   "[Round 0]\\n问：hi\\n答：hello\\n[Round 1]\\n问：bye\\n答："  gmask start
    ChatGLM2     gmask start  "[Round 1]\\n\\n问：hi\\n\\n答："
    ChatGLM3     gmask start  <|user|> "\\n" "hi"  <|assistant|>
    GLM-4        gmask start  <|user|> "\\nhi"     <|assistant|>
"""

import dataclasses
import json

from glm_jax.errors import UserError
from glm_jax.json_files import JsonObject
from glm_jax.tokenizers.messages import Message, function_of, with_our_roles

_TOOLS_OF_CHATGLM3 = (
    "Answer the following questions as best as you can. You have access to the following tools:"
)
_TASK = "你的任务是针对用户的问题和要求提供适当的答复和支持。\n\n# 可用工具"
_GLM4 = "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱AI训练的语言模型 GLM-4 模型开发的，"
_GLM4_0414 = (
    "你是一个名为 ChatGLM 的人工智能助手。你是基于智谱 AI 公司训练的语言模型 GLM-4 模型开发的，"
)
_ARGUMENTS = "\n在调用上述函数时，请使用 Json 格式表示调用的参数。"


@dataclasses.dataclass(frozen=True)
class Token:
    """A special token in a prompt, by its spelling."""

    spelling: str


Prompt = list[Token | str]


@dataclasses.dataclass(frozen=True)
class Chat:
    """What a format is given.

    Attributes:
      messages: checked; calls of tools are text in them.
      tools: descriptions of tools, or None.
      opens: whether the prompt ends where the model's answer begins.
    """

    messages: list[Message]
    tools: list[JsonObject] | None
    opens: bool


def chatglm(chat: Chat) -> Prompt:
    """ChatGLM-6B: a first question stands alone, later ones in rounds counted from 0."""
    rounds = _rounds(chat, "ChatGLM-6B")
    question, answer = rounds[-1]
    if len(rounds) == 1 and answer is None:
        text = question
    else:
        texts = [_round(index, one, "\n") for index, one in enumerate(rounds)]
        text = "".join(texts)
    return [text, Token("[gMASK]"), Token("<sop>")] if chat.opens else [text]


def chatglm2(chat: Chat) -> Prompt:
    """ChatGLM2: rounds counted from 1."""
    texts = [_round(1 + index, one, "\n\n") for index, one in enumerate(_rounds(chat, "ChatGLM2"))]
    return [Token("[gMASK]"), Token("sop"), "".join(texts)]


def chatglm2_next(chat: Chat) -> str:
    """What ChatGLM2 is given after its own last answer, with the rounds before in its cache."""
    rounds = _rounds(chat, "ChatGLM2")
    return "\n\n" + _round(len(rounds), rounds[-1], "\n\n")


def chatglm3(chat: Chat) -> Prompt:
    """ChatGLM3: role, metadata and content of each message, encoded apart."""
    messages = with_our_roles(chat.messages)
    if chat.tools is not None:
        tools = [function_of(tool) for tool in chat.tools]
        messages = _with_tools(messages, tools, _TOOLS_OF_CHATGLM3)
    prompt: Prompt = [Token("[gMASK]"), Token("sop")]
    for message in messages:
        content = message["content"]
        if "tools" in message:
            if message["role"] != "system":
                raise UserError("ChatGLM3 has tools on a system message alone")
            content += "\n" + json.dumps(message["tools"], indent=4, ensure_ascii=False)
        prompt += [_role(message), message.get("metadata", "") + "\n", content]
    return [*prompt, Token("<|assistant|>")] if chat.opens else prompt


def glm4(chat: Chat, line_before_tools: bool = False) -> Prompt:
    """GLM-4-9B: tools in a system block of their own, before the message that has them.

    A message without content is left out, as the published template does.

    Args:
      line_before_tools: an empty line before each tool, as the published Python code writes it.
        Its template has none, since Jinja drops the line end behind a tag.
    """
    messages = with_our_roles(chat.messages)
    if chat.tools is not None:
        messages = _with_tools(messages, chat.tools, "")
    prompt: Prompt = [Token("[gMASK]"), Token("<sop>")]
    for message in messages:
        if "tools" in message:
            gap = "\n" if line_before_tools else ""
            prompt += [Token("<|system|>"), _tools_text(_GLM4, message["tools"], gap)]
        if message["content"]:
            prompt += [_role(message), f"{message.get('metadata', '')}\n{message['content']}"]
    return [*prompt, Token("<|assistant|>")] if chat.opens else prompt


def glm4_0414(chat: Chat) -> Prompt:
    """GLM-4-0414: tools first, then all system messages, then the others without thoughts."""
    messages = with_our_roles(chat.messages)
    tools = [*(chat.tools or []), *(tool for one in messages for tool in one.get("tools", []))]
    prompt: Prompt = [Token("[gMASK]"), Token("<sop>")]
    if tools:
        prompt += [Token("<|system|>"), _tools_text(_GLM4_0414, tools, "")]
    system = [message for message in messages if message["role"] == "system"]
    # A system message that came for its tools alone has said all it has to say.
    system = [message for message in system if message["content"] or "tools" not in message]
    others = [message for message in messages if message["role"] != "system"]
    for message in [*system, *others]:
        content = message["content"]
        if message["role"] == "assistant":
            said, thoughts = split_thoughts(content)
            content = content if thoughts is None else said.strip()
        prompt += [_role(message), f"{message.get('metadata', '')}\n{content}"]
    return [*prompt, Token("<|assistant|>")] if chat.opens else prompt


def split_thoughts(text: str) -> tuple[str, str | None]:
    """(what was said, the thoughts before it or None).

    "<think>hm</think>yes", "hm</think>yes"    ->    ("yes", "hm")
    "<think>hm", an answer that was cut off    ->    ("", "hm")
    """
    thoughts, end, said = text.partition("</think>")
    if end:
        return said.lstrip(), thoughts.strip().removeprefix("<think>").strip()
    if text.lstrip().startswith("<think>"):
        return "", text.lstrip().removeprefix("<think>").strip()
    return text, None


def _rounds(chat: Chat, model: str) -> list[tuple[str, str | None]]:
    """(question, answer) of each round; the answer of the last one is None where it is open."""
    if chat.tools is not None or any("tools" in message for message in chat.messages):
        raise UserError(f"{model} has no format for tools")
    rounds: list[tuple[str, str | None]] = []
    for index, message in enumerate(chat.messages):
        role = message["role"]
        expected = "assistant" if rounds and rounds[-1][1] is None else "user"
        if role != expected or message.get("tool_calls"):
            raise UserError(
                f"messages of {model} must be of 'user' and 'assistant' in turn; messages[{index}] "
                f"must be of {expected!r}, got {role!r}"
            )
        if role == "user":
            rounds.append((message["content"], None))
        else:
            rounds[-1] = (rounds[-1][0], message["content"])
    if chat.opens and rounds[-1][1] is not None:
        raise UserError(f"the last message of a prompt of {model} must be of 'user'")
    return rounds


def _round(number: int, question_and_answer: tuple[str, str | None], gap: str) -> str:
    question, answer = question_and_answer
    text = f"[Round {number}]{gap}问：{question}{gap}答："
    return text if answer is None else f"{text}{answer}{gap}"


def _with_tools(messages: list[Message], tools: list[JsonObject], default: str) -> list[Message]:
    """The messages with tools on the system message at their front, which is made if need be."""
    if any("tools" in message for message in messages):
        raise UserError("give tools as the argument tools or on a message, not both")
    first = messages[0]
    if first["role"] == "system":
        return [{**first, "tools": tools}, *messages[1:]]
    return [{"role": "system", "content": default, "tools": tools}, *messages]


def _tools_text(model: str, tools: list[JsonObject], gap: str) -> str:
    text = f"\n{model}{_TASK}"
    for tool in tools:
        if tool.get("type", "function") != "function":
            raise UserError(
                f"the built-in format knows tools of the type 'function' alone; got "
                f"{tool['type']!r} (the chat_template of a checkpoint may know others)"
            )
        function = function_of(tool)
        described = json.dumps(function, indent=4, ensure_ascii=False)
        text += f"{gap}\n## {function['name']}\n\n{described}{_ARGUMENTS}"
    return text


def _role(message: Message) -> Token:
    return Token(f"<|{message['role']}|>")
