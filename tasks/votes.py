"""The reader of votes: which of several numbered options a reply names as the best (role `vote`).

The reader replaces each word by one letter for its kind, so that the rules are short patterns over
those letters. A reply that does not clearly pick one option is a parse failure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from .replies import NEGATION, normalize_words
from .task import ParseFailure

_NUMERALS = [
    *("one", "two", "three", "four", "five", "six"),
    *("seven", "eight", "nine", "ten", "eleven", "twelve"),
]
_ORDINALS = [
    *("first", "second", "third", "fourth", "fifth", "sixth"),
    *("seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth", "last"),
]
_NOUN = "(?:options?|choices?|candidates?)"
_TOKEN = re.compile(
    rf"(?P<other>[0-9]{{1,4}} {_NOUN}(?!\w)"  # a count
    r"|-?[0-9]{1,9}[./][0-9]{1,9}|(?<!\w)-[0-9]{1,9}(?!\w)|[0-9]{5,}"  # a number that is no option
    r"|(?:second|third|next|2nd|3rd|at)[- ]best(?!\w))"
    rf"|(?P<ordinal>(?:{'|'.join(_ORDINALS)}|[0-9]{{1,4}}(?:st|nd|rd|th))(?!\w))"
    r"|(?P<number>[0-9]{1,4}(?!\w))"
    rf"|(?P<numeral>(?:{'|'.join(_NUMERALS)})(?!\w))"
    rf"|(?P<noun>(?:{_NOUN}|numbers?)(?!\w)|no\. ?(?=[0-9])|\#)"
    r"|(?P<best>(?:best|most promising|winner|winning)(?!\w))"
    r"|(?P<pick>(?:choose|chose|pick|select|prefer|opt for|go with|votes? for|vote)(?!\w))"
    r"|(?P<better>(?:better|superior)(?!\w))"
    r"|(?P<bad>(?:worse|worst|bad|wrong|poor|weak|impossible|incorrect|useless|hopeless|least"
    r"|inferior|reject|avoid|loser|loses)(?!\w)|<)"
    r"|(?P<end>(?:than|over|versus|vs|instead(?: of)?|rather(?: than)?|while|whereas|but"
    r"|although|though|however)"
    r"(?!\w)|[.;!?>()\n—–]|-(?= ))"
    rf"|(?P<negation>{NEGATION})"
    r"|(?P<among>(?:of|among|amongst|between|from)(?!\w))"
    r"|(?P<link>(?:is|was|be|seems|looks|appears|goes to)(?!\w)|[:=])"
    r"|(?P<links>(?:are|were)(?!\w))"
    r"|(?P<reason>(?:because|since|as)(?!\w))"
    r"|(?P<joint>(?:and|or)(?!\w)|[&/,])"
    r"|(?P<silent>(?:the|these|those|all|out|both)(?!\w))"
    r"|(?P<word>\w+)"
)
_LETTERS = {
    "other": "w",
    "ordinal": "O",
    "number": "R",
    "numeral": "N",
    "noun": "n",
    "best": "B",
    "pick": "P",
    "better": "b",
    "bad": "x",
    "negation": "!",
    "among": "o",
    "link": "=",
    "links": "A",
    "reason": "~",
    "end": ".",
    "joint": "&",
    "word": "w",
}
_LIST = r"R(?:&{0,2}R)*"  # `1`, `1 and 2`, `1, 2, and 3`
_START = re.compile(rf"\.*({_LIST})(?=[.~]|$)")
_CLAUSE = re.compile(r"[^.~]+")
_BEFORE = re.compile(rf"({_LIST})(?:[=A]w{{0,4}})?B")  # `1 is clearly the best`
_AFTER = (re.compile(rf"=w{{0,3}}({_LIST})"), re.compile(rf"({_LIST})"))  # `best of all is 1`
_BETTER = re.compile(rf"({_LIST})[=A]w{{0,4}}b")
_LONGEST = 10_000  # characters of a reply


class _Reply(NamedTuple):
    """A reply, reduced to one letter for each word.

    Attributes:
        letters: the letters; `R` is a reference to an option.
        options: the option's number for each index of an `R` in `letters`.
        labelled: the indices of references with a noun: `option 2`, not `2`.
    """

    letters: str
    options: dict[int, int]
    labelled: set[int]

    def named(self, match: re.Match[str]) -> set[int]:
        """Return the options in the list that a pattern found."""
        places = range(match.start(1), match.end(1))
        return {self.options[place] for place in places if place in self.options}


def read_vote(count: int, text: str) -> int | ParseFailure:
    """Read the index of the option that a reply picks.

    A pick is a number alone at the start, an option that is called the best (`option 1 is best`,
    `the best of the 3 options is 1`) or one that is chosen (`I vote for the second option`). If
    there is none, it is the one option that is named before any reason. An option that is only
    compared with the pick (`option 2 is worse`) is not a pick. Two different picks are a failure,
    and so is a reply of more than 10,000 characters.

    Args:
        count: the number of options.
        text: the reply.

    Returns:
        The index, from 0; or a failure with its reason.
    """
    if len(text) > _LONGEST:
        return ParseFailure("vote", text, f"{len(text)} characters are more than {_LONGEST}")
    reply = _reply(count, text)
    picks = _picks(reply) or _only_option(reply)
    if len(picks) > 1:
        return ParseFailure("vote", text, f"several options: {', '.join(map(str, sorted(picks)))}")
    for option in picks:
        if 1 <= option <= count:
            return option - 1
        return ParseFailure("vote", text, f"option {option} is not from 1 to {count}")
    return ParseFailure("vote", text, "no option's number")


def _picks(reply: _Reply) -> set[int]:
    """Return the options that are alone at the start, called the best or chosen.

    If there are none, return those called better.
    """
    start = _START.match(reply.letters)
    picks = reply.named(start) if start else set()
    better: set[int] = set()
    for clause in _CLAUSE.finditer(reply.letters):
        if "!" not in clause[0]:
            picks |= _best(reply, clause)
            for match in _BETTER.finditer(reply.letters, clause.start(), clause.end()):
                better |= reply.named(match)
    return picks or better


def _best(reply: _Reply, clause: re.Match[str]) -> set[int]:
    """Return the options that a clause calls the best or chooses."""
    label = re.search("[BP]", clause[0])
    if label is None:
        return set()
    picks: set[int] = set()
    for match in _BEFORE.finditer(reply.letters, clause.start(), clause.end()):
        picks |= reply.named(match)
    begin = clause.start() + label.start()
    found = (pattern.search(reply.letters, begin, clause.end()) for pattern in _AFTER)
    after = next(filter(None, found), None)
    if after is None or (picks and after.start(1) not in reply.labelled):
        return picks  # `option 2 is best: 3 8` quotes what option 2 is
    return picks | reply.named(after)


def _only_option(reply: _Reply) -> set[int]:
    """Return the options named before any reason.

    These are the ones with a noun, or else a list at the start, or else all; none if a word
    negates something or calls it bad.
    """
    end = reply.letters.find("~", 1)
    letters = reply.letters if end < 0 else reply.letters[:end]
    if "!" in letters or "x" in letters:
        return set()
    labelled = {reply.options[place] for place in reply.labelled if place < len(letters)}
    start = re.match(rf"\.*({_LIST})", letters)
    if labelled or start is None:
        return labelled or {reply.options[place] for place in reply.options if place < len(letters)}
    return reply.named(start)


def _reply(count: int, text: str) -> _Reply:
    """Reduce a reply to a vote on `count` options to letters."""
    tokens = list(_tokens(text))
    letters: list[str] = []
    options: dict[int, int] = {}
    labelled: set[int] = set()
    is_pick = False  # whether the clause so far calls something the best or chooses it
    for i, (letter, word) in enumerate(tokens):
        before = tokens[i - 1][0] if i else ""
        after = tokens[i + 1][0] if i + 1 < len(tokens) else ""
        has_noun = before == "n" or (letter == "O" and after in ("n", "N"))
        if letter == "n" or (letter == "N" and before == "O"):
            letter = "" if (after in ("R", "N") or before == "O") else "w"
        elif letter == "." and is_pick and letters[-1:] == ["="]:
            letter = ""  # `Best option:` and a new line
        elif (option := _option(letter, word, before, after, count)) is not None:
            letter = "R"
            options[len(letters)] = option
            labelled |= {len(letters)} if has_noun else set()
        elif letter in "RON":
            letter = "w"
        is_pick = letter != "." and (is_pick or letter in ("B", "P"))
        letters += letter
    return _Reply(_divided("".join(letters)), options, labelled)


def _tokens(text: str) -> Iterator[tuple[str, str]]:
    """Yield each word's kind, as a letter, and the word."""
    said = "\n".join(map(normalize_words, text.splitlines()))
    for match in _TOKEN.finditer(said):
        if match.lastgroup in _LETTERS:
            yield _LETTERS[match.lastgroup], match[0]


def _option(letter: str, word: str, before: str, after: str, count: int) -> int | None:
    """Return the number of the option that a word refers to; None if it refers to none."""
    if letter == "R":
        return int(word)
    if letter == "O" and (after in ("n", "N") or (word != "last" and after in ("", *"=B.o"))):
        if word == "last":
            return count
        return _ORDINALS.index(word) + 1 if word in _ORDINALS else int(word[:-2])
    if letter == "N" and (before == "n" or (before in ("", "=") and after in ("", *".~"))):
        return _NUMERALS.index(word) + 1
    return None


def _divided(letters: str) -> str:
    """Replace joints that join no options by `.`, and references that only list options by `w`.

    `of 1 and 2` lists options and picks none of them.
    """
    letters = re.sub(r"(?<![R&])&+|&+(?![R&])", lambda match: "." * len(match[0]), letters)
    parts = list(letters)
    is_said = False  # whether the clause so far says something of an option
    for i, letter in enumerate(parts):
        if letter == "&" and is_said and re.match("&?R=", letters[i + 1 : i + 4]):
            parts[i] = letter = "."  # `the best is 1, option 2 is worse`
        is_said = letter not in ".~" and (is_said or letter in "=ABP")
    return re.sub(rf"(?<=o){_LIST}", lambda match: "w" * len(match[0]), "".join(parts))
