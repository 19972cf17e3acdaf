"""Verdicts, feedback and votes: clear replies are read, others are parse failures."""

from __future__ import annotations

from string import ascii_lowercase

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeshare.tasks.replies import is_approved, read_verdict
from treeshare.tasks.task import ParseFailure
from treeshare.tasks.votes import read_vote

VALUES = {" sure": 1.0, " likely": 0.05, " impossible": 0.00005}
WORDS = [word.strip() for word in VALUES]
NEGATIONS = [
    *("not", "no", "never", "cannot be", "can't be", "can’t be", "isn't", "is n't", "hardly"),
    *("neither", "nor", "none", "doubtful", "dont", "far from", "anything but", "rather than"),
]


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    "form",
    [
        *(" {}", "{}.", "{}!", "**{}**", "_{}_", "`{}`", "Verdict: {}", "I am {}", "{}, {}"),
        *("10 + 14 = 24\n{}", "{}: (14 - 8) * 4 = 24", "Can it make 24? It is {}.", "very {}"),
        *("\u00a0{}", "\ufeff{}\u200b", "100 % {}", "{} (8 3)", "measured: {}", "'{}'", "\x85{}"),
    ],
)
def test_a_plain_verdict_is_read(form: str, word: str) -> None:
    for said in (word, word.upper(), word.title()):
        assert read_verdict(VALUES, form.format(said, said)) == VALUES[f" {word}"]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "yes",
            "surely",
            "unlikely",
            "un-likely",
            "non-sure",
            "unsure",
            "sureness",
            "sure-ish",
        ),
        *("not sure", "I'm not sure", "I’m NOT sure", "not impossible", "sure? no, impossible"),
        *(
            "sure?",
            "**sure**?",
            "sure or likely",
            "sure, likely or impossible",
            "unlikely to be sure",
        ),
        *("less sure", "less than likely", "30% sure", "0 percent sure", "99.5 % likely"),
        *(
            "~~sure~~",
            "not\u00a0sure",
            "n\u00adot sure",
            "ｎｏｔ sure",
            "sure\u0338",
            "不sure",
            "❌ sure",
        ),
        *("\u017fure", "li\u212aely", "\u0130mpossible", "impo\u017f\u017fible", "sure123"),
        *("not likely\nsure", "sure\nnot likely", "sure\nimpossible", "cant be sure", "sure, not!"),
    ],
)
def test_what_is_no_plain_verdict_is_a_failure(text: str) -> None:
    assert isinstance(read_verdict(VALUES, text), ParseFailure)


filler = st.text(alphabet=f"{ascii_lowercase} 0123456789+-*/=.,:()\n", max_size=20)


@given(filler, st.sampled_from(WORDS), filler, st.sampled_from(NEGATIONS), filler, st.booleans())
def test_a_negation_in_its_line_or_after_it_makes_it_a_failure(
    a: str, word: str, b: str, negation: str, c: str, is_first: bool
) -> None:
    first, second = (negation, word) if is_first else (word, negation)
    between = b.replace("\n", " ") if is_first else b
    text = f"{a} {first} {between} {second} {c}"
    assert isinstance(read_verdict(VALUES, text), ParseFailure)
    assert not is_approved(f"correct {text}")


@pytest.mark.parametrize("word", WORDS)
def test_lines_before_the_verdict_may_say_no_to_other_things(word: str) -> None:
    """The examples in Tree of Thoughts' own prompt do so."""
    said = "5 + 7 + 8 = 20\nI cannot obtain 24 now, but numbers are within a reasonable range\n"
    assert read_verdict(VALUES, f"{said}{word}") == VALUES[f" {word}"]


@given(filler, st.permutations(WORDS), filler, filler)
def test_two_verdicts_are_a_failure(a: str, words: list[str], b: str, c: str) -> None:
    text = f"{a} {words[0]} {b} {words[1]} {c}"
    assert isinstance(read_verdict(VALUES, text), ParseFailure)


@pytest.mark.parametrize(
    "text",
    [
        *(
            " correct",
            "Correct.",
            "**Correct!**",
            "correct, it makes 24",
            "correct because 6 * 4 = 24",
        ),
        *("\u00a0CORRECT\u200b", "correct: (14 - 8) * (1 + 3) = 24", "correct - all are used"),
    ],
)
def test_feedback_that_approves_ends_the_mending(text: str) -> None:
    assert is_approved(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "wrong", "incorrect", "not correct", "in correct", "correctness", "correct the sign"),
        *("correct, but 4 is used twice", "correct? no", "correct?", "Correct; however, 1 is left"),
        *(
            "correct, not",
            "corrected: 8 * 3",
            "correct it",
            "correct and wrong",
            "correct if 1 is 2",
        ),
        *("correct except for the 4", "It isn't correct", "correct answer is 8 * 3", "correct-ish"),
        *("corre\u212at", "almost correct", "correct, mistake in the sum"),
    ],
)
def test_feedback_with_an_objection_does_not(text: str) -> None:
    assert not is_approved(text)


@pytest.mark.parametrize(
    ("text", "option"),
    [
        *((" 2", 2), ("**2**", 2), ("(2)", 2), ("#2", 2), ("2.", 2), (r"\boxed{2}", 2), ("２", 2)),
        *(("Option 1", 1), ("option two", 2), ("No. 2", 2), ("I'd say number two", 2), ("two", 2)),
        *(("the first option", 1), ("The 2nd option", 2), ("first", 1), ("the last one", 3)),
        ("Best option: 2", 2),
        ("Best option:\n2", 2),
        ("Option 1 is best, Option 2 is worse", 1),
        ("The best of the 3 options is 1", 1),
        ("Of 1 and 2 the best option is 2.", 2),
        ("Among options 1, 2 and 3 the best is 3", 3),
        ("Option 1 is best and option 2 is worse", 1),
        ("the best is 1, option 2 is worse", 1),
        ("the best is 1 while 2 is worse", 1),
        ("Option 2 is best: 3 8 makes 24", 2),
        ("best option for making 24 is 2", 2),
        ("Option 2 is the best because option 1 cannot make 24", 2),
        ("Option 1 is not the best, option 2 is best", 2),
        ("Second best is 2; best is 1", 1),
        ("First, note that option 2 is best", 2),
        ("Option 2 is better than option 1", 2),
        ("I would pick 2 over 1", 2),
        ("Choose option 1 instead of 2", 1),
        ("Option 3: (14 - 8) * (1 + 3) = 24", 3),
        ("I vote for the third option", 3),
        ("My choice is 2", 2),
        ("3\n\nOption 1: 4", 3),
        ("2 because 3 8 makes 24 and option 1 cannot", 2),
        ("2: 3 8", 2),
        ("Option 2: 3 8", 2),
        ("Option 1: 15 16 17\nOption 2: 3 8\nBest option: 2", 2),
        ("Since 3 * 8 = 24, option 2.", 2),
    ],
)
def test_a_vote_is_the_option_picked(text: str, option: int) -> None:
    assert read_vote(3, text) == option - 1


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            "none",
            "0",
            "4",
            "-1",
            "1.5",
            "2/3",
            "٢",
            "²",
            "2x",
            "9" * 5000,
            "Option A",
            "Option 10",
        ),
        *(
            "1 or 2",
            "1, 2",
            "1 2 3",
            "1 and 2 are best",
            "Best: option 1 or option 2",
            "Options 1 and 3",
        ),
        *("Option 1 is best. Option 2 is best.", "2\nThe best option is 3", "1 is best, 2 is best"),
        *("Option 1: 15 16 17\nOption 2: 3 8", "Option 1 is the best option 2 is worse"),
        *("not 2", "Option 1 is not best", "Neither 1 nor 2", "The worst option is 1", "3 options"),
        *("Option 1 is worse than option 2", "Option 1 is good, option 2 is bad", "1 < 2"),
    ],
)
def test_no_clear_pick_is_a_failure(text: str) -> None:
    assert isinstance(read_vote(3, text), ParseFailure)


@given(st.integers(1, 30), st.integers(1, 30), st.sampled_from(["", "Option ", "option #"]))
def test_two_picks_contradict_each_other(a: int, b: int, noun: str) -> None:
    for text in (
        f"{noun}{a} is best. {noun}{b} is best.",
        f"The best option is {noun}{a}; the best option is {noun}{b}",
        f"{a}\nBest option: {noun}{b}",
    ):
        assert (
            read_vote(30, text) == a - 1
            if a == b
            else isinstance(read_vote(30, text), ParseFailure)
        )
    assert read_vote(30, f"{noun}{a} is best, {noun}{b} is worse") == a - 1


@given(st.text() | st.text(alphabet="123 option best is the not first,.:\nworse"))
def test_no_reply_makes_a_reader_raise(text: str) -> None:
    vote = read_vote(3, text)
    assert isinstance(vote, ParseFailure) or 0 <= vote < 3
    read_verdict(VALUES, text)
    is_approved(text)
