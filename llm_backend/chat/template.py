"""A model's chat template: turns of a conversation to text.

Templates are programs in Jinja that come with a model's files. They run in a sandbox, with what
transformers gives them, except that today's date is a fixed one. So a run is the same tomorrow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date as Date
from typing import Any

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

Turns = Sequence[tuple[str, str]]
"""Pairs of a role and a text."""


class ChatTemplate:
    """A chat template with the variables that do not change.

    Args:
        text: the template.
        variables: the tokenizer's special tokens by name, such as `bos_token`.
        date: what the template shows as today's date, such as `2026-01-31`.

    Raises:
        ValueError: the text is no template, or the date is none.
    """

    def __init__(self, text: str, variables: Mapping[str, str], date: str) -> None:
        try:
            today = Date.fromisoformat(date)
        except (TypeError, ValueError):
            raise ValueError(
                f"model.chat_date={date!r} must be a date such as 2026-01-31"
            ) from None
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals |= {
            "raise_exception": _raise,
            "strftime_now": today.strftime,
            "dict": lambda *args, **more: dict(*args, **more),  # without the methods of the class
        }
        try:
            self._template = environment.from_string(text)
        except jinja2.TemplateError as error:
            raise ValueError(f"the chat template cannot be read: {_one_line(error)}") from error
        self._variables = dict(variables)
        self.prints_date = "strftime_now" in text

    def render(
        self, turns: Turns, options: Mapping[str, Any], *, add_generation_prompt: bool
    ) -> str:
        """Return the text of a conversation.

        Args:
            turns: the conversation.
            options: further variables of the template, such as `enable_thinking`.
            add_generation_prompt: whether the text goes on to where the assistant's reply begins.

        Raises:
            ValueError: the template refuses the conversation, or fails.
        """
        try:
            return self._template.render(
                messages=[{"role": role, "content": text} for role, text in turns],
                tools=None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **self._variables | dict(options),
            )
        except Exception as error:  # a template is a program of others, and can fail in any way
            raise ValueError(
                f"the chat template refuses the conversation: {_one_line(error)} (model.chat=flat "
                "asks in plain text)"
            ) from error


class _Generation(Extension):
    """The tag `generation`, which marks the assistant's text for training; here it does nothing."""

    tags = {"generation"}  # noqa: RUF012  # as Jinja declares it

    def parse(self, parser: Any) -> Any:
        """Return the statements between the tag and its end."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


def _to_json(value: Any, ensure_ascii: bool = False, **options: Any) -> str:
    """Return a value as JSON; Jinja's own filter escapes the characters of HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, **options)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _one_line(error: Exception) -> str:
    line = " ".join(str(error).split()) or type(error).__name__
    return line if len(line) <= 200 else f"{line[:200]}..."
