"""Answers and steps of Countdown and the Game of 24 in every spelling, and long replies."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import pytest
import task_options
from hypothesis import given, settings
from hypothesis import strategies as st

from treeshare.tasks.arithmetic.countdown import Countdown, CountdownVerifier
from treeshare.tasks.arithmetic.game24 import Game24, Game24Verifier
from treeshare.tasks.arithmetic.replies import final_expression, is_equation, read_sides
from treeshare.tasks.arithmetic.rules import Position, evaluate, solve
from treeshare.tasks.blocksworld.task import Blocksworld, BlocksworldVerifier
from treeshare.tasks.crosswords.task import Crosswords, CrosswordsVerifier
from treeshare.tasks.graph_of_thoughts.sorting import Sorting, SortingVerifier
from treeshare.tasks.task import ParseFailure, Problem

GAME = Game24()
PROBLEM = Problem("some", (4, 9, 10, 13))
ROOT = GAME.root(PROBLEM)


def judged(text: str, role: str = "io") -> bool | None:
    """Return whether a reply is right; None if it cannot be read."""
    steps = GAME.parse(role, ROOT, text)
    if isinstance(steps, ParseFailure):
        return None
    answer = GAME.answer(steps[0].state)
    assert answer is not None
    return Game24Verifier().check(PROBLEM, answer)


@pytest.mark.parametrize(
    "text",
    [
        "(10 − 4) × (13 − 9) = 24",
        "(10 - 4) ⋅ (13 - 9) = 24",
        "(10 – 4) • (13 ‑ 9)",
        "(10 - 4) ✖️ (13 ➖ 9) = 24",
        "（10－4）×（13－９）＝24",
        "Answer：（10－4）＊（13－9）",
        "(10 - 4) x (13 - 9) = 24",
        "(10-4)X(13-9)=24",
        "(10 — 4) * (13 — 9)",
        r"(10 - 4) \times (13 - 9) = 24",
        r"(10 - 4)\cdot(13 - 9) = 24",
        r"(10 - 4) \* (13 - 9) = 24",
        r"\left(10 - 4\right) \times \left[13 - 9\right]",
        r"\boxed{(10 - 4) \times (13 - 9)}",
        r"\boxed{(10 - 4) \times (13 - 9) = 24}",
        r"So we get \boxed{(10 - 4) \times (13 - 9)}.",
        r"The answer is $\boxed{(10 - 4) \times (13 - 9) = 24}$.",
        r"(10 - 4) \times (13 - 9) = \boxed{24}",
        "(10 - 4) * (13 - 9) = 24\n" r"The result is \boxed{24}.",
        r"\( (10 - 4) \times (13 - 9) = 24 \)",
        r"\[ (10 - 4) \times (13 - 9) = 24 \]",
        "\\[\n(10 - 4) \\times (13 - 9) = 24\n\\]",
        r"$$(10 - 4) \times (13 - 9) = 24$$",
        r"Answer: $(10 - 4)\,\times\,(13 - 9)$",
        r"\\boxed{(10 - 4) \\times (13 - 9)}",
        r"\boxed{\text{(10 - 4) * (13 - 9)}}",
        "24 = (10 - 4) * (13 - 9)",
        "24 = (10 - 4) * (13 - 9) = 24",
        "(10 - 4) * (13 - 9) = 6 * 4 = 24",
        "6 * 4 = (10 - 4) * (13 - 9) = 24",
        "(10 - 4) * (13 - 9) == 24",
        "[10 - 4] * [13 - 9] = 24",
        "{10 - 4} * {13 - 9}",
        "[(10 - 4) * (13 - 9)] = 24",
        "The answer is (10 - 4) * (13 - 9).",
        "The final answer is\u00a0(10\u2009-\u202f4)\u3000* (13\u200b - 9)",
        "Answer = (10 - 4) * (13 - 9)",
        "**Answer**: (10 - 4) * (13 - 9) = 24 ✓",
        r"Draft: \boxed{10 + 4}" "\nAnswer: (10 - 4) * (13 - 9)",
    ],
)
def test_a_right_answer_is_right_in_every_spelling(text: str) -> None:
    for role in ("io", "cot", "refine"):
        assert judged(text, role) is True


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("(10 - 4] * (13 - 9) = 24", None),
        ("(10 - 4) * (13 - 9", None),
        ("(10 - 4)(13 - 9) = 24", None),  # no sign
        ("x = 24", None),
        ("9**9**9", None),
        (r"9 \times\times 9", None),
        ("1² + 1", None),
        ("٢ + ٢", None),
        (r"\boxed{}", None),
        (r"\boxed{((((}", None),
        ("24", False),
        (r"\boxed{24}", False),
        ("24 = 24", False),
        ("24 = 6 * 4", False),
        ("5 + 5 = (10 - 4) * (13 - 9)", False),
        ("25 = (10 - 4) * (13 - 9)", False),
        ("4 * 6 = 24", False),
        ("24 + 4 - 4", False),
        ("(10 - 4) × 4", False),
        ("Answer: (10 - 4) * (13 - 9)\nNo.\nAnswer: 10 + 4", False),
        (r"\boxed{(10 - 4) * (13 - 9)}" "\nAnswer: 10 + 4 = 24", False),
    ],
)
def test_what_is_wrong_or_unreadable_is_not_right(text: str, right: bool | None) -> None:
    assert judged(text) is right
    assert not is_equation(text, (4, 9, 10, 13), Fraction(24))


def test_fractions_of_latex_are_divisions() -> None:
    puzzle = (3, 3, 8, 8)
    for text in (
        r"\frac{8}{3 - \frac{8}{3}} = 24",
        r"\boxed{\dfrac{8}{3 - \tfrac{8}{3}}}",
        r"\( 8 \div \left(3 - \frac{8}{3}\right) = 24 \)",
    ):
        answer = final_expression(text, puzzle)
        assert answer is not None and is_equation(answer, puzzle, Fraction(24))
        assert is_equation(text, puzzle, Fraction(24)) or "boxed" in text
    (side,) = read_sides(r"\frac{1 + 1}{2 + 2} * 8")
    assert side.value == 4


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("10 ⋅ 4 = 40 (left: 9 13 40)", "9 13 40"),
        ("10 × 4 ＝ 40", "9 13 40"),
        ("１０－４＝６", "6 9 13"),
        ("10 x 4 = 40", "9 13 40"),
        ("10 — 4 = 6 — 6 9 13 left", "6 9 13"),
        (r"10 \times 4 = 40", "9 13 40"),
        (r"\( 10 \times 4 = 40 \)", "9 13 40"),
        (r"\[10 \cdot 4 = 40\]", "9 13 40"),
        (r"$10 \times 4 = 40$ (left: 9 13 40)", "9 13 40"),
        (r"1. $10 \times 4 = 40$", "9 13 40"),
        (r"10 \times 4 = \boxed{40}", "9 13 40"),
        (r"\boxed{10 \times 4 = 40}", "9 13 40"),
        ("40 = 10 * 4", "9 13 40"),
        ("Step 2: 40 = 10 × 4 (left: 9 13 40)", "9 13 40"),
        ("[10 * 4] = 40", "9 13 40"),
        ("(10) * (4) = 40", "9 13 40"),
        (r"\frac{10}{4} = \frac{5}{2}", "5/2 9 13"),
        ("10\u00a0-\u20094 =\u200b 6", "6 9 13"),
    ],
)
def test_a_step_is_read_in_every_spelling(line: str, left: str) -> None:
    for role in ("propose", "step"):
        steps = GAME.parse(role, ROOT, line)
        assert isinstance(steps, list) and str(steps[0].state) == left


@pytest.mark.parametrize(
    "line",
    [
        *("10 * 4 = 41", "40 = 10 * 4 * 1", "40 = 10 * 4 = 40", "10 * 4 = 40 = 4 * 10"),
        *("40 = 10", "10 ** 4 = 40", "10 ×× 4 = 40", "(10 - 4) * (13 - 9) = 24", "10 4 = 40"),
        *("40 = 10 * 40", "6 * 4 = 24", "²10 * 4 = 40", "10 * 4 ≈ 40", "10 * ٤ = 40"),
    ],
)
def test_what_is_no_step_left_is_none(line: str) -> None:
    assert isinstance(GAME.parse("step", ROOT, line), ParseFailure)


SPELLINGS = {
    "*": [*"*×✕⋅·∙•＊", r"\times ", r" \cdot ", r"\*", " x "],
    "/": [*"/÷∕⁄／", r"\div "],
    "-": [*"-−–‑－", r"\-"],
    "+": [*"+＋➕"],
    "(": ["(", "（", r"\left("],
    ")": [")", "）", r"\right)"],
    " ": [" ", "", "\u00a0", "\u2009", "\u200b", r"\,", "\t"],
}
WRAPPERS = [
    *("{}", "{} = {target}", "{target} = {}", "Answer: {}", "**Answer:** `{} = {target}`"),
    *("The answer is {}.", r"\( {} \)", "$${} = {target}$$", r"\boxed{{}}", "so\n{}\nindeed"),
    *("[{}] = {target}", "Answer:\n{} = {target}", "{} = {target} = {target}"),
]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(WRAPPERS), st.booleans(), st.booleans())
def test_any_spelling_of_an_answer_is_read_as_the_plain_one(
    seed: int, wrapper: str, is_solved: bool, is_countdown: bool
) -> None:
    draw = random.Random(seed)
    task, verifier = (COUNTDOWN, CountdownVerifier()) if is_countdown else (GAME, Game24Verifier())
    problem = draw.choice(task.problems())
    root: Position = task.root(problem)
    state = solve(root) if is_solved else None
    if state is None:
        state = root
        while not state.is_final:
            state = draw.choice(task.moves(state)).state
    plain = state.numbers[0].expression
    value, numbers = evaluate(plain)
    spelt = "".join(draw.choice(SPELLINGS.get(character, [character])) for character in plain)
    text = wrapper.replace("{target}", str(value)).replace("{}", spelt)
    (step,) = task.parse(draw.choice(["io", "cot"]), root, text)
    answer = task.answer(step.state)
    assert answer is not None and evaluate(answer) == (value, numbers)
    assert verifier.check(problem, answer) == (value == root.target)


@given(st.integers(0, 2**32))
def test_any_spelling_of_a_step_is_read_as_the_plain_one(seed: int) -> None:
    draw = random.Random(seed)
    root = GAME.root(draw.choice(GAME.problems()))
    state = draw.choice([root, draw.choice(GAME.moves(root)).state])
    move = draw.choice(GAME.moves(state)).state
    line = move.steps[-1]
    equation, _, rest = line.partition(" (left")
    # `6 / 1/7` without blanks is another step, so there the blanks stay.
    kept = "/ " if equation.count("/") > 1 else "/"
    spelt = "".join(draw.choice(SPELLINGS.get(c, [c])) if c not in kept else c for c in equation)
    wrapper = draw.choice(["{}", "- {}", "Step 1: {}", r"\( {} \)", "${}$", "1. **{}**"])
    (step,) = GAME.parse("step", state, wrapper.replace("{}", spelt) + f" (left{rest}")
    assert step.state == move and step.text == line


COUNTDOWN = Countdown(limit=5)
FILE = str(Path(task_options.__file__).parent / "task_files/crosswords.json")
BOMBS = [
    *("(", "[{", "1 ", "-", "= ", "1=", "\n", "1+\n", "1 + 1 = 2\n", "\\frac{1}{", "\\boxed{"),
    *("\\boxed{a}\n", "answer is ", "Answer: 1+\n", "1 x ", "sure ", "un-", "less than ", "9"),
    *(
        "9% ",
        "\u00a0",
        "best ",
        "1 is best, ",
        "option 1 and ",
        "h1. heart\n",
        "rows:",
        "a ",
        "heart ",
    ),
    *("move A onto B; ", "step ", "[1, ", "correct ", "\u0130", "\u0301", "$ "),
]


@pytest.fixture
def bounded() -> Iterator[None]:
    """End a test that needs more than 8 seconds of this process's CPU time."""

    def end(*_: object) -> None:
        raise AssertionError("a reader needs more than linear time")

    before = signal.signal(signal.SIGVTALRM, end)
    signal.setitimer(signal.ITIMER_VIRTUAL, 8)
    yield
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize("prefix", ["1", "Answer: "])
@pytest.mark.parametrize("bomb", BOMBS, ids=ascii)
def test_long_replies_end(bomb: str, prefix: str) -> None:
    text = prefix + bomb * (100_000 // len(bomb)) + "1"
    for task, verifier in (
        (GAME, Game24Verifier()),
        (Crosswords(FILE), CrosswordsVerifier(FILE)),
        (BLOCKS, BlocksworldVerifier()),
        (SORTING, SortingVerifier()),
    ):
        problem = task.problems()[0]
        root = task.root(problem)
        for role in {"propose", "step", "io", "solve"} & set(task.sampling):
            assert isinstance(task.parse(role, root, text), list | ParseFailure)
        assert not verifier.check(problem, text)
    GAME.parse_value(ROOT, text)
    GAME.parse_vote([ROOT] * 3, text)
    GAME.is_satisfied(ROOT, text)


BLOCKS = Blocksworld(limit=1)
SORTING = Sorting(size=8, part_size=4, limit=1)
