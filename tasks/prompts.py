"""The prompts of tasks: an instruction, worked examples, and lines that show a state.

Instructions and examples are text files in `prompts/` next to a task's modules. The lines that show
a state are a layout of the task: texts with placeholders, such as `{question}`. The layout says
where the model's reply begins, so that the same prompt can be asked in turns (`task.Dialogue`). A
user can replace a prompt by a text with the same placeholders, and choose the number of examples
(docs/tasks.md#prompts).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from importlib.resources import files
from os import PathLike, fspath
from pathlib import Path
from typing import NamedTuple, Self

from .generator import at_least
from .task import Dialogue

REPLY = "{reply}"
"""Stands in a layout where the reply begins: what follows is how the model's reply begins."""

PromptTexts = Mapping[str, str | PathLike[str] | None]
"""By role, the file or the text that replaces a prompt; None keeps the task's own."""

Shots = int | Mapping[str, int]
"""The number of examples in each prompt that has any, or numbers by role."""

Values = Mapping[str, str | Sequence[str]]
"""What stands in place of each placeholder: a text, or lines, each of which is a segment."""

_EXAMPLES = "examples"  # the placeholder that stands for the task's own examples
_REPLY = "reply"  # the placeholder that stands for nothing, where the reply begins
_PLACEHOLDER = re.compile(r"\{\{([a-z_]+)\}\}|\{([a-z_]+)\}")


class _Segment(NamedTuple):
    """A part of a prompt: a text, or a format with `%s` for each of its placeholders' values."""

    format: str
    names: tuple[str, ...]

    def fill(self, values: Values) -> str | Sequence[str]:
        """Return the text; or the lines of a placeholder that stands for lines."""
        if not self.names:
            return self.format
        if self.format == "%s":
            return values[self.names[0]]
        return self.format % tuple([values[name] for name in self.names])


class _Template(NamedTuple):
    """The parts of a prompt, as `Dialogue` has them; the reply is its steps and its cue."""

    instruction: Sequence[_Segment]
    examples: tuple[tuple[str, str], ...]
    question: Sequence[_Segment]
    reply: Sequence[_Segment]


class Preamble(NamedTuple):
    """The constant part of a prompt.

    Attributes:
        instruction: what the model is asked to do, without a line end.
        examples: worked examples, each without a line end at its end.
    """

    instruction: str
    examples: tuple[str, ...]


def read_prompts(package: str, *folders: str) -> dict[str, Preamble]:
    """Read the instructions and examples of a task.

    Args:
        package: the package that holds the folder `prompts`, usually `__package__`.
        folders: the folder below `prompts`, if several tasks share the package.

    Returns:
        By file name without `.txt`: the first paragraph of the file, which is the instruction, and
        the others, which are the examples. Empty lines divide paragraphs.

    Raises:
        OSError: there is no such folder.
    """
    folder = files(package).joinpath("prompts", *folders)
    found = {}
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".txt"):
            instruction, *examples = file.read_text(encoding="utf-8").rstrip("\n").split("\n\n")
            found[file.name.removesuffix(".txt")] = Preamble(instruction, tuple(examples))
    return found


class PromptTemplates:
    """The prompts of a task by role: a preamble, and a layout into which a state's values are put.

    Args:
        preambles: the constant parts by name (`read_prompts`).
        layouts: by role, the name of its preamble, then the segments that show a state. A segment
            that is a placeholder alone may stand for several lines, or for none. What follows
            `REPLY` is how the reply begins. The reply in an example begins with the same words, in
            a line of its own.

    Raises:
        ValueError: an example has no such line.
    """

    def __init__(
        self, preambles: Mapping[str, Preamble], layouts: Mapping[str, tuple[str, ...]]
    ) -> None:
        self.replaced: dict[str, str] = {}
        """The texts that a user gave in place of the task's prompts, by role."""
        self._preambles = {role: preambles[name] for role, (name, *_) in layouts.items()}
        self._layouts = {role: segments for role, (_, *segments) in layouts.items()}
        self._templates = {role: self._arranged(role, self._own(role)) for role in layouts}

    def customized(self, prompts: PromptTexts | None, shots: Shots | None) -> Self:
        """Return templates in which a user's texts and numbers of examples take effect.

        Args:
            prompts: by role, a prompt with the role's placeholders. A text that has a brace or a
                line end is the prompt itself, and any other text names a file, whose last line end
                is not part of the prompt.
            shots: the number of examples, which are the first ones. It must not be more than the
                task has. A replaced prompt shows them in place of `{examples}`, if it has that.

        Raises:
            OSError: a file cannot be read.
            TypeError: a prompt is neither a text nor a file.
            ValueError: there is no such role, a text lacks a placeholder or has an unknown one, or
                a number of examples is out of its bound.
        """
        if not prompts and shots is None:
            return self
        new = copy(self)
        given = {role: text for role, text in (prompts or {}).items() if text is not None}
        new.replaced = {role: new._read(role, text) for role, text in given.items()}
        numbers = new._numbers_of_examples(shots)
        new._preambles = {
            role: Preamble(text.instruction, text.examples[: numbers.get(role)])
            for role, text in self._preambles.items()
        }
        texts = {role: new._own(role) for role in self._layouts}
        texts |= {role: _split(text) for role, text in new.replaced.items()}
        new._templates = {role: new._arranged(role, text) for role, text in texts.items()}
        return new

    def render(self, role: str, values: Values) -> Dialogue:
        """Return the prompt for `role`; its first segment is the part that all states share.

        Args:
            role: a role of the layouts.
            values: what the role's placeholders stand for.

        Raises:
            ValueError: there is no such role.
        """
        if role not in self._templates:
            raise ValueError(f"role={role!r} must be one of {', '.join(self._templates)}")
        template = self._templates[role]
        instruction = "".join(_lines(template.instruction, values))
        steps, cue = list[str](), ""
        for segment in template.reply:
            text = segment.fill(values)
            if isinstance(text, str):
                cue += text
            else:
                steps += [cue, *text]
                cue = ""
        question = _lines(template.question, values)
        return Dialogue(instruction, template.examples, question, filter(None, steps), cue)

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that have a prompt."""
        return tuple(self._layouts)

    def preamble(self, role: str) -> str:
        """Return the constant part of the task's own prompt, which ends with an empty line."""
        return f"{self._preambles[role].instruction}\n\n{self._examples(role)}"

    def instruction(self, role: str) -> str:
        """Return the first paragraph of the task's own prompt."""
        return self._preambles[role].instruction

    def examples(self, role: str) -> tuple[str, ...]:
        """Return the examples of the task's own prompt."""
        return self._preambles[role].examples

    def text(self, role: str) -> str:
        """Return the prompt for `role` with its placeholders, as a user would write it in a file.

        Raises:
            ValueError: there is no such role.
        """
        if role in self.replaced:
            return self.replaced[role]
        self._check_role("text", role)
        instruction = _PLACEHOLDER.sub(r"{\g<0>}", self._preambles[role].instruction)
        examples = f"{{{_EXAMPLES}}}" if self._preambles[role].examples else ""
        return "".join([f"{instruction}\n\n{examples}", *self._layouts[role]])

    def _own(self, role: str) -> list[_Segment]:
        """Return the segments of the task's own prompt."""
        instruction = _Segment(f"{self._preambles[role].instruction}\n\n", ())
        return [instruction, _Segment("%s", (_EXAMPLES,)), *self._layout(role)]

    def _layout(self, role: str) -> list[_Segment]:
        return [_joined(_split(text)) for text in self._layouts[role]]

    def _arranged(self, role: str, prompt: Sequence[_Segment]) -> _Template:
        """Divide a prompt at its examples and where its reply begins.

        The reply of a user's text without `{reply}` begins at the first placeholder that stands in
        the reply of the task's own prompt, if there is one. Examples that stand elsewhere than
        before the question are part of the text.
        """
        layout = self._layout(role)
        own_reply = layout[_place(layout, _REPLY) + 1 :]
        names = [_REPLY] if _REPLY in _names(prompt) else _names(own_reply)
        begin = _place(prompt, *names)
        asked, reply = prompt[:begin], prompt[begin:]
        at = _place(asked, _EXAMPLES)
        question = asked[at + 1 :]
        examples: list[tuple[str, str]] = []
        if own_reply and any(segment.format.strip() for segment in question):
            asked = asked[:at]
            examples = [_divided(text, own_reply) for text in self._preambles[role].examples]
        else:
            asked, question = [], asked
        texts: dict[tuple[str, ...], _Segment] = {
            (_EXAMPLES,): _Segment(self._examples(role), ()),
            (_REPLY,): _Segment("", ()),
        }
        instruction, question, reply = (
            [texts.get(segment.names, segment) for segment in part]
            for part in (asked, question, reply)
        )
        return _Template(instruction, tuple(examples), question, reply)

    def _examples(self, role: str) -> str:
        return "".join(f"{example}\n\n" for example in self._preambles[role].examples)

    def _check_role(self, what: str, role: str) -> None:
        if role not in self._layouts:
            raise ValueError(f"{what}: role {role!r} must be one of {', '.join(self._layouts)}")

    def _read(self, role: str, given: str | PathLike[str]) -> str:
        """Read a user's prompt, and check its placeholders."""
        self._check_role("prompts", role)
        names = _names(self._layout(role))
        needed = [name for name in names if name != _REPLY]
        optional = [_EXAMPLES] * bool(self._preambles[role].examples) + [_REPLY] * (_REPLY in names)
        rule = f"it needs {_listed(needed)}" + (
            f", and may have {_listed(optional)}" * bool(optional)
        )
        source, text = _source(f"prompts.{role}", given, rule)
        used = _names(_split(text))
        if unknown := [name for name in used if name not in (*needed, *optional)]:
            raise ValueError(
                f"{source} has an unknown placeholder {_listed(unknown[:1])}: {rule}; as a text, "
                f"that is written {{{_listed(unknown[:1])}}}"
            )
        if missing := [name for name in needed if name not in used]:
            raise ValueError(f"{source} lacks {_listed(missing)}: {rule}")
        return text

    def _numbers_of_examples(self, shots: Shots | None) -> dict[str, int]:
        """Check the number of examples, and return it for each role that it concerns."""
        if shots is None:
            return {}
        most = {
            role: len(preamble.examples)
            for role, preamble in self._preambles.items()
            if preamble.examples and _EXAMPLES in _names(_split(self.text(role)))
        }
        if isinstance(shots, Mapping):
            for role, number in shots.items():
                self._check_role("shots", role)
                at_least(0, **{f"shots.{role}": number})
                if number > most.get(role, 0):
                    raise ValueError(f"shots.{role}={number} must be at most {most.get(role, 0)}")
            return dict(shots)
        at_least(0, shots=shots)
        if shots > (bound := min(most.values(), default=0)):
            by_role = ", ".join(f"{role}: {number}" for role, number in most.items())
            raise ValueError(
                f"shots={shots} must be at most {bound}"
                f"{f'; by role, at most shots={{{by_role}}}' if most else ''}"
            )
        return dict.fromkeys(most, shots)


def _source(where: str, given: str | PathLike[str], rule: str) -> tuple[str, str]:
    """Return what a prompt is called in errors, and its text."""
    if not isinstance(given, str | PathLike):
        raise TypeError(f"{where}={given!r} must be a file or a text")
    if isinstance(given, str) and ("{" in given or "\n" in given):
        return f"{where}: the text", given
    try:
        text = Path(given).read_text(encoding="utf-8-sig")
    except OSError as error:
        what = f"{where}: {fspath(given)!r}: {error.strerror}"
        raise type(error)(f"{what}; if it is the prompt itself, {rule}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: {given}: not a file in UTF-8: {error}") from error
    return f"{where}: {given}", text.removesuffix("\n")


def _split(text: str) -> list[_Segment]:
    """Split a text into its placeholders and the texts between them.

    A doubled brace on both sides of a name stands for the text of a placeholder: `{{name}}`.
    """
    found, literal, end = [], "", 0
    for match in _PLACEHOLDER.finditer(text):
        literal += text[end : match.start()]
        end = match.end()
        if match[1]:
            literal += f"{{{match[1]}}}"
        else:
            found += [_Segment(literal, ()), _Segment("%s", (match[2],))]
            literal = ""
    return [*found, _Segment(literal + text[end:], ())]


def _divided(example: str, reply: Sequence[_Segment]) -> tuple[str, str]:
    """Divide an example into its question, with the line end, and its reply.

    The reply begins in the last line that begins as replies do; or in the first, if a reply has a
    line for each step, since each of them begins so.

    Raises:
        ValueError: there is no such line after the first.
    """
    words = next((segment.format for segment in reply if segment.format != "%s"), "")
    words = words.partition("%s")[0].rstrip("\n")
    lines = example.splitlines(keepends=True)
    begins = [i for i, line in enumerate(lines) if i and words and line.startswith(words)]
    if not begins:
        raise ValueError(f"no line after the first of {example!r} begins with {words!r}")
    begin = begins[0] if any(segment.format == "%s" for segment in reply) else begins[-1]
    return "".join(lines[:begin]), "".join(lines[begin:])


def _lines(segments: Iterable[_Segment], values: Values) -> Iterator[str]:
    """Yield the segments of a part of a prompt."""
    for segment in segments:
        text = segment.fill(values)
        yield from [text] if isinstance(text, str) else text


def _place(segments: Sequence[_Segment], *names: str) -> int:
    """Return the index of the first segment with one of the names; their number if none has."""
    places = (i for i, segment in enumerate(segments) if not set(names).isdisjoint(segment.names))
    return next(places, len(segments))


def _joined(segments: Sequence[_Segment]) -> _Segment:
    """Return one segment for several; a placeholder alone, or a text alone, stays what it is."""
    segments = [segment for segment in segments if segment.format]
    if len(segments) == 1:
        return segments[0]
    formats = (s.format if s.names else s.format.replace("%", "%%") for s in segments)
    return _Segment("".join(formats), tuple(name for s in segments for name in s.names))


def _names(segments: Iterable[_Segment]) -> list[str]:
    """Return the names of the placeholders, each once, in their order."""
    return list(dict.fromkeys(name for segment in segments for name in segment.names))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in names)
