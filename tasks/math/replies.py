r"""The finder of a solution's final answer: boxes, `Answer:` lines, `####`, "the answer is".

`final_answer` finds it and removes the words around it; `structure.read_answer` reads it. The last
place counts, so a correction replaces what it corrects. Text after a further question, with which a
base model may continue, is not read.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .latex import normalize_latex
from .numbers import Number, read_number
from .structure import read_answer

LONGEST_ANSWER = 200
"""Characters of an answer; a longer one is not read."""

_LONGEST_READ = 200_000  # characters of a reply
_MOST_PLACES = 200  # places that are tried, from the end
_MOST_JOINED = 50  # boxes of one answer
_LONGEST_GAP = 60  # characters between two boxes

_MARK = re.compile(  # every repetition is bounded, so that a reply of a million blanks is quick
    r"""(?P<sharp>\#{4}(?!\#)[ \t]{0,9}|<answer>)
    | ^[^\w\n\\$]{0,20}(?:(?:the|my|final|correct|right)[ ]){0,2}answer
      [^\w\n\\$(\-]{0,20}\n(?:[ \t]{0,9}[-=]{3,99}[ \t]{0,9}\n)?  # a heading
    | (?<![^\W_])answers?(?![^\W_])[*_`]{0,4}
      (?:[ ]?\([^()\n]{1,40}\)|[ ](?:to|for)[ ](?:the|this|that)[ ](?:question|problem)|[ ]here)?
      [*_`]{0,4}
      (?P<link>[ \t]{0,9}(?:[:=→]{1,3}|->|[ ]-(?=[ ]))
      |[ ]{1,3}(?:is|are|equals|becomes|(?:must|will|would|should)[ ]be|comes[ ](?:out[ ])?to)
       (?!\w|n't|[ ]not\b))
      [*_`]{0,4}(?:[ \t]{0,9}[:=])?
      (?:[ ]{1,3}(?:therefore|thus|hence|simply|just|then|so|clearly|indeed|equal[ ]to)\b,?)?
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)
_QUESTION = re.compile(
    r"""^[^\w\n]{0,20}(?:Q|Question|Problem|Exercise)(?:[ ]?\d{1,4})?[*_]{0,4}[ ]?[:.](?:\s|[*_])
    | ^[^\w\n]{0,20}(?:Question|Problem|Exercise)[ ]?\d
    | \b(?:Question|Problem)[ ]?\d{0,4}:\s
    | <\|[a-z_]{1,20}\|> | </s>""",
    re.MULTILINE | re.VERBOSE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:that|this|it)(?:'s| is| was) (?:wrong|not right|not correct|incorrect|a mistake)\b"
    r"|\bscratch that\b|\bI made (?:a|an) (?:mistake|error)\b",
    re.IGNORECASE,
)
_BOX = re.compile(r"\\(?:f?boxed|fbox|framebox)(?![a-zA-Z])")
_BRACES = re.compile(r"\\(?:f?boxed|fbox|framebox)\s{0,9}{|\\.|[{}]", re.DOTALL)
_BARE_BOX = re.compile(
    r"\\(?:boxed|fbox)(?=[\s\\\d])\s{0,9}(-?\d(?:[\d.,]{0,200}\d)?|\d|[a-zA-Z](?![a-zA-Z])"
    r"|\\[dt]?frac\s*(?:{[^{}]*}|\d)\s*(?:{[^{}]*}|\d)|\\[a-zA-Z]+(?:{[^{}]*})?)"
)
_BETWEEN_BOXES = re.compile(
    r"(?:[^\S\n]|[$,;&]|\\[()\[\]]|\\q?quad|\\text{[^{}\n]{0,12}}|\b(?:and|or)\b|\b[a-zA-Z](?:_\w)?\s*=)*"
)
_AGAINST = re.compile(
    r"[$), ]{1,4}(?:(?:and|but) )?(?:since|because|not|rather than|instead of|as) [^\n.!?]{0,99}"
)
_MATH_START = re.compile(
    r"[-+−]?\s*[\d.$£€¥½¼¾√π∞±({\[\\]|[a-zA-Z](?:_?\w)?\s*[=<>≤≥]|-?[a-zA-Z]\W"
    r"|(?:minus|negative) \d"
)
_BOUNDARY = re.compile(
    r"[.;!?](?=\s|$)|,(?=\s+[^\W\d_])|\s*\((?!s\)|mod\b)|\s(?:because|since|as|so|which|where|when|after|not|for)\b"
    r"|\s+[-–—]+\s+(?=[^\W\d_]{2})|—|\s+=(?=\s)"
)
_STRONG_BOUNDARY = re.compile(
    r"[.;!?](?=\s|$)|,?\s+(?:because|since|which|where|so that)\b"
    r"|\s*\((?:because|since|as|which|so|that)\b"
)
_MORE = re.compile(
    r"[\s,;.]*(?:or|and|plus|minus|to|times|but|rather|no|nope|wait|actually|sorry|±|\\pm|[-+*/^]|\d)\b.*\d|[\s,;.]*(?:[-+*/^=]\s*\d|[a-zA-Z](?:_\w)?\s*=)",
    re.IGNORECASE,
)
_SENTENCE_START = re.compile(
    r"(?:\n|[.!?]\s)[^\w\n]{0,20}(?:(?:the|my|so|final|correct|right) ){0,3}$", re.IGNORECASE
)
_RELATION = re.compile(r"[=<>≡≈]|\\(?:equiv|approx|le|ge)")
_SPAN = re.compile(
    r"\s*(?:\$\$(.+?)\$\$|\$(?!\d+(?:\.\d+)?\s)([^$\n]+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\])", re.DOTALL
)
_ONLY_WORDS = re.compile(
    r"\s*(?:[.;!?](?:\s|$)|$|(?!,?\s*(?:and|or)\b)(?:,?\s+(?:[a-zA-Z]+\s+)*[a-zA-Z]+[.!]?$|,\s+[a-zA-Z]))"
)
_LEAD = re.compile(  # words such as `Janet makes` before a number
    r"(?:[^\W\d_][\w'’-]*,?\s+){1,10}(?:is|are|was|were|has|have|had|makes?|made|earns?|earned|gets?"
    r"|got|needs?|needed|takes?|took|costs?|pays?|paid|sells?|sold|spends?|spent|saves?|saved|eats?"
    r"|ate|buys?|bought|uses?|used|drives?|drove|runs?|ran|walks?|walked|owes?|owed|weighs?|equals"
    r"|total of|left with|be|will be)\s+(?:a total of\s+)?(?=[$£€¥]?\s?\d)",
    re.IGNORECASE,
)
_HEDGED = re.compile(
    r"\b(?:not|no|never|than|least|most|about|approximately|around|nearly|almost|half|twice|double"
    r"|triple|between|if|or|before|without|instead|could|might|may|would|plus|minus|another|first)\b|n't\b",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class _Box:
    r"""A `\boxed{}`: where its command starts, where it ends, and its content."""

    start: int
    end: int
    content: str


def final_answer(text: str) -> str | None:
    r"""Return the last answer of a solution, without the words around it.

    It is in `\boxed{}`, on an `Answer:` line, or after `####` or "the answer is". Several boxes in
    one sentence with only `and`, commas and `x =` between them are one answer, in their order:
    `3, 5`. Only the last 200,000 characters are read.

    Returns:
        The answer. None if there is none, if it is withdrawn ("that is wrong"), or if it is empty
        or longer than 200 characters.
    """
    text = before_next_question(text)[-_LONGEST_READ:]
    marks, boxes = list(_MARK.finditer(text)), _boxes(text)
    thought = text.rfind("</think>")
    found = _last(text, marks, boxes, thought) or (
        _last(text, marks, boxes, -1) if thought >= 0 else None
    )
    if found is None or not 0 < len(found[1]) <= LONGEST_ANSWER:
        return None
    return None if _TAKEN_BACK.search(text, found[0]) else found[1]


def before_next_question(text: str) -> str:
    """Return a reply without the further questions that follow its answer.

    A reply without an answer before such a question is returned whole.
    """
    mark, box = _MARK.search(text), _BOX.search(text)
    if mark is None and box is None:
        return text
    answered = min(match.end() for match in (mark, box) if match is not None)
    match = _QUESTION.search(text, answered)
    return text[: match.start()] if match else text


def _last(
    text: str, marks: list[re.Match[str]], boxes: list[_Box], after: int
) -> tuple[int, str] | None:
    """Find the last answer after a position: the index where its place starts, and its text.

    A box, an `Answer:` line and `####` are preferred to words such as "the answer is in dollars".
    """
    unsure = None
    mark_at = len(marks) - 1
    box = boxes[-1] if boxes and boxes[-1].start > after else None
    stop = len(text)  # where the next mark starts
    for _ in range(_MOST_PLACES):
        mark = marks[mark_at] if mark_at >= 0 and marks[mark_at].start() > after else None
        if box is not None and (mark is None or box.start > mark.start()):
            return _joined(text, boxes)
        if mark is None:
            break
        rest = _first_lines(text[mark.end() : min(stop, mark.end() + 4 * LONGEST_ANSWER)])
        answer = _cut(rest)
        if answer and _is_sure(mark, answer, rest):
            return mark.start(), answer
        if answer and unsure is None:
            unsure = mark.start(), answer
        mark_at, stop = mark_at - 1, mark.start()
    return unsure


def _is_sure(mark: re.Match[str], answer: str, rest: str) -> bool:
    """Return whether an answer certainly follows a mark.

    After `is`, `####` and a heading it must be mathematics; "the answer is in dollars" has none.
    """
    link = mark["link"]
    if link is not None and not re.search("[a-z]", link) and _starts_sentence(mark):
        return True
    if mark["sharp"] and re.match(r"\s*\d+[.):]\s+[^\W\d_]", rest):
        return False  # `#### 2. Check`
    if link is not None and rest.strip()[len(answer) : len(answer) + 2].strip()[:1] == "?":
        return False
    return _MATH_START.match(answer) is not None and not _RELATION.search(answer)


def _starts_sentence(mark: re.Match[str]) -> bool:
    start = mark.start()
    before = "\n" * (start < 60) + mark.string[max(0, start - 60) : start]
    return _SENTENCE_START.search(before) is not None


def _first_lines(rest: str) -> str:
    """Return the rest of the line, or the next line that is not empty; a formula stays whole."""
    if span := _SPAN.match(rest):
        return rest[: span.end()] + rest[span.end() :].partition("\n")[0]
    if match := re.match(r"[\s*_`:]*\\begin{(\w+)}", rest):
        close = rest.find(rf"\end{{{match[1]}}}", match.end())
        if close >= 0:
            return rest[:close] + rest[close:].partition("\n")[0]
    blank = re.match(r"[\s*_`]*", rest)
    start = blank.end() if blank else 0
    if span := _SPAN.match(rest, start):
        return rest[: span.end()] + rest[span.end() :].partition("\n")[0]
    return rest[:start] + rest[start:].partition("\n")[0]


def _cut(rest: str) -> str:
    """Return an answer without the words before and after it."""
    line = re.sub(r"\*\*|__|`|</?answer>.*", "", rest).strip(" \t\n*:").removeprefix("that ")
    if _is_number(line):
        return line.rstrip(". ")
    for boundary in _BOUNDARY.finditer(line, 0, LONGEST_ANSWER):
        head, tail = line[: boundary.start()], line[boundary.end() :]
        if _is_number(head):
            is_part = boundary[0].strip() == "=" or _MORE.match(tail)
            return line if is_part else head
    if (answer := _only_number(line) or _formula(line)) is not None:
        return answer
    end = _STRONG_BOUNDARY.search(line, 1)
    return (line[: end.start()] if end else line).rstrip(". ")


def _only_number(line: str) -> str | None:
    """Return `$18` of `She makes $18 a day`; None with another number or a word as `at least`."""
    lead = _LEAD.match(line)
    if lead is None or _HEDGED.search(line) or len(re.findall(r"\d[\d.,]*", line)) != 1:
        return None
    number = line[lead.end() :]
    if not _is_number(number):
        number = _BOUNDARY.split(number, maxsplit=1)[0]
    return number.rstrip(". ") if _is_number(number) else None


def _formula(line: str) -> str | None:
    """Return the delimited formula that a line begins with, and its unit, if only words follow."""
    span = _SPAN.match(line)
    tail = line[span.end() :] if span else ""
    if span is None or _MORE.match(tail) or not _ONLY_WORDS.match(tail):
        return None
    unit = re.match(r"\s*[^\W\d_]+(?:\s+per\s+[^\W\d_]+)?(?=[\s.,;!]|$)", tail)
    is_unit = unit is not None and read_number(f"1 {unit[0]}") is not None
    return (span[0] + (unit[0] if unit and is_unit else "")).strip()


def _is_number(text: str) -> bool:
    return len(text) <= LONGEST_ANSWER and isinstance(read_answer(text), Number)


def _boxes(text: str) -> list[_Box]:
    """Find the boxes with balanced braces in one pass; of nested ones, the outer."""
    first = _BOX.search(text)
    if first is None:
        return []
    boxes: list[_Box] = []
    opened: list[tuple[int, int]] = []  # where a brace's content starts, and its box, or -1
    for match in _BRACES.finditer(text, first.start()):
        token = match[0]
        if token[-1] == "{" and token != "\\{":
            opened.append((match.end(), match.start() if len(token) > 1 else -1))
        elif token == "}" and opened:
            start, box = opened.pop()
            if box >= 0 and match.start() - start <= LONGEST_ANSWER:
                while boxes and boxes[-1].start > box:
                    boxes.pop()  # that box is inside this one
                boxes.append(_Box(box, match.end(), text[start : match.start()].strip()))
    bare = _BARE_BOX.finditer(text, first.start())
    boxes += [_Box(match.start(), match.end(), match[1]) for match in bare]
    return sorted(boxes, key=lambda box: box.start)


def _joined(text: str, boxes: list[_Box]) -> tuple[int, str]:
    """Return the last box, or the whole enumeration that it ends, each value once."""
    last = len(boxes) - 1
    while last > 0 and _AGAINST.fullmatch(
        text, boxes[last - 1].end, max(boxes[last - 1].end, boxes[last].start)
    ):
        last -= 1  # `\boxed{2}, not \boxed{3}`
    chain = [boxes[last]]
    for before in reversed(boxes[max(0, last - _MOST_JOINED) : last]):
        gap = text[before.end : chain[-1].start]
        if len(gap) > _LONGEST_GAP or not _BETWEEN_BOXES.fullmatch(gap):
            break
        chain.append(before)
    values: list[str] = []
    for box in reversed(chain):
        if not any(_are_one(box.content, value) for value in values):
            values.append(box.content)
    return chain[0].start, ", ".join(values)


def _are_one(a: str, b: str) -> bool:
    number = read_number(a)
    return normalize_latex(a) == normalize_latex(b) or (
        number is not None and number == read_number(b)
    )
