"""The chat format of a model: a conversation, and how the reply to it begins, as tokens.

The turns are rendered once, by the model's template, to where the reply begins. The reply's own
text is never rendered: its tokens follow those of the turns. (transformers'
`continue_final_message` gives another text for a third of the public templates: it leaves out the
last line end of the reply, or what the template puts before it.)
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any, Protocol

from treeshare.llm_backend.api import Chat

from .template import ChatTemplate, Turns

Ids = tuple[int, ...]
"""Token ids of a text."""

REMEMBERED = 1024
"""Conversations whose tokens are kept at most, without the replies."""

logger = logging.getLogger(__name__)

_THOUGHTS = {  # how a thought begins, and what ends it
    "<think>": "</think>",
    "<thought>": "</thought>",
    "<seed:think>": "</seed:think>",
    "[THINK]": "[/THINK]",
    "<mm:think>": "</mm:think>",
    "<|channel>thought": "<channel|>",
    "<|inner_prefix|>": "<|inner_suffix|>",
    "<|START_THINKING|>": "<|END_THINKING|>",
    "Here are my reasoning steps:": "[BEGIN FINAL RESPONSE]",
}
_NO_THOUGHT = {"enable_thinking": False, "thinking": False}  # what most templates read
_OURS = ("messages", "tools", "documents", "add_generation_prompt")  # variables of every template
_USER, _REPLY, _NEXT, _SYSTEM = (f"@{name}@" for name in ("asked", "replied", "next", "system"))


class TextTokens(Protocol):
    """What a chat format needs of a tokenizer (`model.tokenizer.Tokenizer`)."""

    hf: Any

    @property
    def special_tokens(self) -> Mapping[int, str]:
        """The names of special tokens by id."""
        ...

    def encode_marked(self, text: str) -> Ids:
        """Return the tokens of a text in which the names of special tokens are these tokens."""
        ...

    def encode_after(self, text: str) -> Ids:
        """Return the tokens of a text that follows another, in which all names are text."""
        ...


class ChatFormat:
    """How a model is asked in turns.

    No thought is asked for: where a template begins one, it is closed at once.

    Args:
        tokenizer: the model's.
        template: the chat template; None takes the tokenizer's own.
        options: variables for the template, such as `enable_thinking`.
        system: a system prompt for all conversations that have none; None leaves it to the
            template. A template that has no place for one shows it at the start of the user's first
            turn.
        date: what the template shows as today's date.

    Attributes:
        tokenizer: the model's.
        digest: of the template, the options, the system prompt and, if the template prints it, the
            date; 8 hexadecimal digits.
        end_tokens: ids that end a turn.
        opening: the text after the template's own marks that skips a thought.

    Raises:
        ValueError: there is no template; it fails, or does not show what the user says; or an
            option is not the template's.
    """

    def __init__(
        self,
        tokenizer: TextTokens,
        template: str | None = None,
        options: Mapping[str, Any] | None = None,
        system: str | None = None,
        date: str = "2026-01-01",
    ) -> None:
        if template is None:
            if not tokenizer.hf.chat_template:
                raise ValueError("model.chat=template, but the tokenizer has no chat template")
            template = str(tokenizer.hf.get_chat_template())
        self.tokenizer = tokenizer
        self._template = ChatTemplate(template, tokenizer.hf.special_tokens_map, date)
        self._system = system
        self._has_warned = False
        marks = [mark for pair in _THOUGHTS.items() for mark in pair]
        marks = [mark for mark in marks if mark in tokenizer.hf.get_added_vocab()]
        self._names = {*tokenizer.special_tokens.values(), *marks}
        inside = (f"(?<={re.escape(mark[0])})(?={re.escape(mark[1:])})" for mark in marks)
        self._in_marks = "|".join(inside)  # matches the places behind the first letters of marks
        self._options = _NO_THOUGHT | dict(options or {})
        for name in options or {}:
            self._check_option(name)
        self._keeps_system = self._shows((("system", _SYSTEM), ("user", _USER)))
        begin = self._rendered((("user", _USER),))
        if _USER not in begin:
            raise ValueError("the chat template does not show what the user says")
        self.opening, self._blank = self._begun_reply(begin)
        self.end_tokens = self._turn_ends()
        printed = date if self._template.prints_date else None
        identity = json.dumps([template, self._options, system, printed], sort_keys=True)
        self.digest = sha256(identity.encode()).hexdigest()[:8]
        self._head = lru_cache(maxsize=REMEMBERED)(self._encoded_turns)

    def __str__(self) -> str:
        return f"template {self.digest}"

    def encode(self, chat: Chat) -> Ids:
        """Return the tokens of a prompt: the turns, and how the reply begins.

        Raises:
            ValueError: the template refuses the turns or leaves out one of them, or a text has no
                tokens.
        """
        ids, before = self._head(chat.turns), self._blank
        for piece in chat.reply:
            ids += self._encoded_text(before + piece)
            before = ""
        return ids

    def warn_of_plain_text(self) -> None:
        """Say, once, that prompts without turns are not asked in the chat format."""
        if not self._has_warned:
            logger.warning(
                "the model has a chat format, but some prompts have no turns: these are asked in "
                "plain text (docs/chat.md)"
            )
        self._has_warned = True

    def _encoded_turns(self, turns: Turns) -> Ids:
        turns = self._with_system(turns)
        text = self._rendered(turns) + self.opening
        for role, said in turns:
            if said.strip() not in text:
                raise ValueError(
                    f"the chat template leaves out or changes a turn of {role}: {said[:60]!r}"
                )
        if any(name in said for name in self._names for _, said in turns):
            return self._encoded_parts(turns, text)
        return self.tokenizer.encode_marked(text)

    def _encoded_parts(self, turns: Turns, text: str) -> Ids:
        """Encode the template's text and the turns apart, so that a turn's text stays text."""
        places = [(role, f"@{i}@") for i, (role, _) in enumerate(turns)]
        parts = re.split(r"@(\d+)@", self._rendered(places) + self.opening)
        for texts in ([said for _, said in turns], [said.strip() for _, said in turns]):
            said = [texts[int(part)] if i % 2 else part for i, part in enumerate(parts)]
            if "".join(said) == text:
                break
        else:
            raise ValueError("the chat template changes a turn that names a special token")
        ids: Ids = ()
        for i, part in enumerate(said):
            ids += self._encoded_text(part) if i % 2 else self.tokenizer.encode_marked(part)
        return ids

    def _encoded_text(self, text: str) -> Ids:
        """Encode a text that follows another one, and in which the names of tokens are text."""
        ids: Ids = ()
        # Tokenizers split the names of special tokens. The marks of thoughts may be others.
        for part in re.split(self._in_marks, text) if self._in_marks else [text]:
            ids += self.tokenizer.encode_after(part)
        return ids

    def _with_system(self, turns: Turns) -> Turns:
        """Put the system prompt in front, or into the user's first turn."""
        if self._system is not None and turns[0][0] != "system":
            turns = (("system", self._system), *turns)
        if turns[0][0] != "system" or self._keeps_system:
            return turns
        (_, system), (role, asked), *others = turns
        return ((role, f"{system}\n\n{asked}"), *others)

    def _rendered(
        self, turns: Turns, options: Mapping[str, Any] | None = None, *, asks: bool = True
    ) -> str:
        options = self._options if options is None else options
        return self._template.render(turns, options, add_generation_prompt=asks)

    def _shows(self, turns: Turns) -> bool:
        """Whether the template shows the first turn."""
        try:
            return turns[0][1] in self._rendered(turns)
        except ValueError:
            return False

    def _begun_reply(self, begin: str) -> tuple[str, str]:
        """Return what comes between a conversation, rendered as `begin`, and the reply's text.

        Some templates write an empty thought into the turns of the assistant only; others begin a
        thought, which has to be closed.

        Returns:
            The text that skips a thought; and blanks that the template puts before a text. They are
            left to the model if the reply has not begun, since tokens begin with a blank.
        """
        asked = (("user", _USER), ("assistant", _REPLY))
        before, shown, _ = self._rendered(asked, asks=False).rpartition(_REPLY)
        opening = before.removeprefix(begin) if shown and before.startswith(begin) else ""
        if opening.isspace():
            return "", opening
        reply = begin.rpartition(_USER)[2] + opening
        for start, end in _THOUGHTS.items():
            if reply.rfind(start) > reply.rfind(end):
                opening += f"{end}\n\n"
        return opening, ""

    def _turn_ends(self) -> frozenset[int]:
        """Return the tokens that the template puts after a text of the assistant."""
        asked = (("user", _USER), ("assistant", _REPLY))
        added = self.tokenizer.hf.added_tokens_decoder
        found = set()
        for turns in (asked, (*asked, ("user", _NEXT))):
            try:
                after = self._rendered(turns, asks=False).rpartition(_REPLY)[2].lstrip()
            except ValueError:
                continue
            found |= {token for token in self.tokenizer.encode_marked(after)[:1] if token in added}
        return frozenset(found)

    def _check_option(self, name: str) -> None:
        """Check that an option changes what the template renders.

        Raises:
            ValueError: it does not, or is not the user's to set.
        """
        key = f"model.chat_template_args.{name}={self._options[name]!r}"
        if name in _OURS:
            raise ValueError(f"{key} is given to the template by the chat format itself")
        without = {other: value for other, value in self._options.items() if other != name}
        choices = (self._options, without, _NO_THOUGHT | without)
        asked = (("user", _USER), ("assistant", _REPLY), ("user", _NEXT))
        for turns in (asked, asked[:2], asked[:1]):
            asks = len(turns) != 2  # of two turns the last is the assistant's
            if len({self._rendered(turns, options, asks=asks) for options in choices}) > 1:
                return
        raise ValueError(f"{key} changes nothing in the chat template")
