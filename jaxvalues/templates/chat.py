"""Chat prompts: messages as the text and token ids that an instruction-tuned model was trained on.

The tokenizer's own chat template writes the text. Four things are made sure of. The text is tokenised without further
special tokens, so that it has one beginning-of-sequence token (BOS) at most. A system message that the template refuses
or drops goes into the first user turn. The date is always DATE, so that a prompt is the same tomorrow. A model that
thinks before it answers is given the form in which it has thought already, so that its first token is the answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import date
from typing import TYPE_CHECKING

from jaxvalues.data.tokenizers import special_tokens
from jaxvalues.errors import ConfigError, UserError, first_line, short

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
"""A turn: `role` (system, user or assistant) and `content`."""

DATE = date(2024, 7, 26)
"""The date in templates that write today's. It is the fixed one of the template of Llama 3.1."""
ROLES = ("system", "user", "assistant")
THINKING = (
    ("<think>", "</think>"),  # Qwen 3, DeepSeek R1, SmolLM 3
    ("<|START_THINKING|>", "<|END_THINKING|>"),  # Command A
    ("[THINK]", "[/THINK]"),  # Magistral
    ("<seed:think>", "</seed:think>"),  # Seed-OSS
)
"""The tokens between which models think."""

_MARK = "jaxvalues-system-message"
_NOW = re.compile(r"strftime_now\(\s*(?:\"([^\"]*)\"|'([^']*)')\s*\)")


def conversation(question: str, turns: Sequence[tuple[str, str]] = (), system: str | None = None) -> list[Message]:
    """The messages of a question behind earlier turns, each what was asked and what was answered."""
    messages = [] if system is None else [{"role": "system", "content": system}]
    for asked, answered in turns:
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]
    return [*messages, {"role": "user", "content": question}]


def without_first_turn(messages: Sequence[Message]) -> list[Message]:
    """The messages of a conversation without what was asked and answered first; a system message stays."""
    first = 1 if messages[0]["role"] == "system" else 0
    return [*messages[:first], *messages[first + 2 :]]


def has_chat_template(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether a tokenizer has a chat template, as those of instruction-tuned models do."""
    return bool(tokenizer.chat_template)


def chat_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, stem: str = "") -> list[int]:
    """The token ids of `chat_text`. Raises UserError as it does, and for more than one BOS."""
    return text_ids(tokenizer, chat_text(tokenizer, messages, stem=stem))


def chat_text(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], *, stem: str = "") -> str:
    """The prompt for the assistant's next turn, which is made to begin with `stem`.

    A text that spells a special token is changed so that it does not become one (see `_harmless`).
    Raises UserError for a tokenizer without a chat template, for messages that are no conversation, and for a template
    that refuses them.
    """
    if not has_chat_template(tokenizer):
        raise UserError(
            f"the tokenizer ({type(tokenizer).__name__}) has no chat template, so it is not that of an "
            "instruction-tuned model: prompts must be plain texts (formulation.chat: false), or another tokenizer is "
            "needed (model.tokenizer)"
        )
    tokens = _control_tokens(tokenizer)
    messages = [{**message, "content": _harmless(message["content"], tokens)} for message in _checked(messages)]
    if messages[0]["role"] == "system" and not messages[0]["content"].strip():
        messages = messages[1:]
    if messages[0]["role"] == "system" and not _takes_system(tokenizer, messages):
        messages = fold_system(messages)
    return without_thinking(_render(tokenizer, messages)) + stem


def _takes_system(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> bool:
    """Whether the chat template writes a system message, and neither refuses nor drops it."""
    try:
        return _MARK in _render(tokenizer, [{"role": "system", "content": _MARK}, *messages[1:]])
    except UserError:
        return False


def text_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a rendered prompt, in which special tokens are written out. Raises UserError for two BOS."""
    ids = plain_ids(tokenizer, text)
    if (count := count_bos(tokenizer, ids)) > 1:
        raise UserError(
            f"the prompt begins with {count} beginning-of-sequence tokens (`{tokenizer.bos_token}`), expected one at "
            "most: the chat template or the texts write it twice"
        )
    return ids


def plain_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """The token ids of a text without special tokens. Raises UserError for half a surrogate pair, which is no text."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the text holds {short(text[error.start])}, half of a character, expected UTF-8") from None
    options = {"add_special_tokens": False, "return_attention_mask": False, "verbose": False}
    return list(tokenizer(text, **options)["input_ids"])


def count_bos(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> int:
    """The number of BOS tokens that a prompt begins with. A tokenizer may have none."""
    if tokenizer.bos_token_id is None:
        return 0
    return next((i for i, id in enumerate(ids) if id != tokenizer.bos_token_id), len(ids))


def fold_system(messages: Sequence[Message]) -> list[dict[str, str]]:
    """The messages with the system message put before the first user turn, for templates that know no system role."""
    first, *rest = messages
    if first["role"] != "system":
        return [dict(message) for message in messages]
    if not rest or rest[0]["role"] != "user":
        raise UserError("a system message must stand before a turn of the user")
    return [{"role": "user", "content": f"{first['content']}\n\n{rest[0]['content']}"}, *map(dict, rest[1:])]


def without_thinking(prompt: str) -> str:
    """A prompt after which the model answers at once: a thought that it leaves open is closed, empty."""
    for start, end in THINKING:
        opened = prompt.rfind(start)
        if opened > prompt.rfind(end):
            prompt = f"{prompt[: opened + len(start)]}\n\n{end}\n\n"
    return prompt


def answer_of(text: str) -> str:
    """What a generated text says after its thoughts. It is empty where a thought was not finished."""
    for start, end in THINKING:
        before, found, after = text.rpartition(end)
        text = after if found else before + after
        text = text.partition(start)[0]
    return text.strip()


def _control_tokens(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The special and the thinking tokens of several characters, the longest first."""
    named = {*special_tokens(tokenizer), *(tag for pair in THINKING for tag in pair)}
    return sorted((token for token in named if len(token) > 1), key=len, reverse=True)


def _harmless(text: str, tokens: Sequence[str]) -> str:
    """A text that spells none of the tokens: these get a space after their first character."""
    for token in tokens:
        text = text.replace(token, f"{token[0]} {token[1:]}")
    return text


def turn_ends(tokenizer: PreTrainedTokenizerBase) -> tuple[int, ...]:
    """The tokens that end a turn of the assistant: what the chat template writes behind it, and the tokenizer's EOS.

    They may differ (Gemma, Llama 3). Without a chat template there is EOS alone.
    """
    ends = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    if has_chat_template(tokenizer):
        said = "jaxvalues"
        turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": said}]
        behind = text_ids(tokenizer, _render(tokenizer, turns, prompt=False).rpartition(said)[2])
        ends += [id for id in behind[:1] if id in special_tokens(tokenizer).values()]
    return tuple(dict.fromkeys(ends))


def leading_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The special tokens that a plain text begins with, as the tokenizer's own files say: BOS, or none.

    They are none where the tokenizer puts tokens at both ends: so it frames texts for an encoder.
    """
    before, behind = special_ends(tokenizer)
    return [] if behind else before


def special_ends(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """The special tokens that a tokenizer puts before and after a plain text, as its own files say."""
    plain, whole = (tokenizer("a", add_special_tokens=special)["input_ids"] for special in (False, True))
    start = next(i for i in range(len(whole)) if whole[i : i + len(plain)] == plain)
    return whole[:start], whole[start + len(plain) :]


def _checked(messages: Sequence[Message]) -> Sequence[Message]:
    if not messages:
        raise UserError("a chat prompt needs at least one message")
    for number, message in enumerate(messages):
        if set(message) != {"role", "content"} or message["role"] not in ROLES:
            raise UserError(f"messages[{number}] must have a `role` ({', '.join(ROLES)}) and a `content`, and no more")
        if not isinstance(message["content"], str):
            raise UserError(f"messages[{number}].content must be a text, not {type(message['content']).__name__}")
        if message["role"] == "system" and number:
            raise UserError(f"messages[{number}] is a system message, expected it at the beginning only")
    if messages[-1]["role"] != "user":
        raise UserError(f"the last message must be the user's, not the {messages[-1]['role']}'s")
    return messages


def _render(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], prompt: bool = True) -> str:
    """What the chat template makes of messages, with a fixed date and without thoughts.

    As a `prompt` it ends where the assistant's turn begins.
    """
    try:
        template = _dated(tokenizer.get_chat_template())
        options = {"enable_thinking": False, "thinking": False, "tokenize": False, "add_generation_prompt": prompt}
        return tokenizer.apply_chat_template(list(messages), chat_template=template, **options)
    except UserError:
        raise
    except Exception as error:  # templates are programs: they raise, or fail in any way
        raise UserError(
            f"the chat template of the tokenizer refuses the prompt ({first_line(error)[:120]}): expected one for "
            "texts, with turns of user and assistant"
        ) from None


def _dated(template: str) -> str:
    """A template in which DATE stands in the place of today."""
    dated = _NOW.sub(lambda call: repr(DATE.strftime(call[1] or call[2] or "")), template)
    if "strftime_now(" in dated:
        raise ConfigError("the chat template computes the format of today's date, so it cannot be fixed: edit it")
    return dated
