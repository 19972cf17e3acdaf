"""The prompts of the Game of 24 and the worked examples in them."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import pytest

from treeshare.tasks.arithmetic.game24 import Game24, Game24Verifier
from treeshare.tasks.arithmetic.game24_puzzles import solvable_puzzles
from treeshare.tasks.arithmetic.rules import Number, Position, count_solutions
from treeshare.tasks.task import Problem, Step

TASK = Game24()
VERIFIER = Game24Verifier()
ROOT = Position.start((2, 8, 8, 14))
ROLES = ("propose", "step", "choose", "io", "cot", "value", "judge", "reflect")
CONSTANTS = {
    "propose": TASK.templates.preamble("propose"),
    "steps": TASK.templates.preamble("step"),
    "solve": TASK.templates.preamble("io"),
    "value": TASK.templates.preamble("value"),
    "judge": TASK.templates.preamble("judge"),
    "vote": TASK.templates.preamble("vote"),
    "reflect": TASK.templates.preamble("reflect"),
}


def left(text: str) -> Position:
    """Return a position with these values left, of no particular puzzle."""
    values = sorted(map(Fraction, text.split()))
    return Position((), tuple(Number(value, str(value)) for value in values))


def read(role: str, state: Position, text: str) -> list[Step]:
    steps = TASK.parse(role, state, text)
    assert isinstance(steps, list) and steps
    return steps


@pytest.mark.parametrize("role", [*ROLES, "vote"])
def test_a_prompt_begins_with_its_constant_part_and_breaks_after_lines(role: str) -> None:
    child = TASK.moves(ROOT)[0].state
    final = TASK.moves(TASK.moves(child)[0].state)[0].state
    (answered,) = read("io", ROOT, "8 + 8")
    states = [ROOT, child, final, answered.state]
    cases = [states] if role == "vote" else states
    for segments in (TASK.prompt(role, case) for case in cases):
        assert segments[0] in CONSTANTS.values()
        assert segments[0] == TASK.prompt(role, cases[0])[0]
        assert all(segment.endswith("\n") for segment in segments[:-1])
        assert not segments[-1].endswith(" ")
        assert len("".join(segments)) < 900


def test_a_child_continues_its_parents_prompt() -> None:
    for role in ("step", "choose", "cot"):
        prompt = "".join(TASK.prompt(role, ROOT))
        for move in TASK.moves(ROOT):
            assert "".join(TASK.prompt(role, move.state)).startswith(prompt + move.text)


def test_a_terminal_state_is_judged_by_its_equation() -> None:
    (step,) = read("step", left("8 15"), "8 + 15 = 23")
    (claim,) = read("io", ROOT, "8 + 15 = 23")
    for role, label in (("value", "Verdict:"), ("judge", "Makes 24:")):
        assert "".join(TASK.prompt(role, step.state)).endswith(f"Answer: 8 + 15 = 23\n{label}")
        assert "".join(TASK.prompt(role, claim.state)).endswith(f"Answer: 8 + 15 = 24\n{label}")


def test_reflections_are_shown_where_steps_are_asked_for_and_inherited() -> None:
    state = TASK.with_reflections(ROOT, ["avoid 8 * 8", "make 3 * 8"])
    assert state == ROOT
    for role in ("propose", "step", "choose", "cot"):
        for shown in (state, TASK.moves(state)[0].state):
            lessons = TASK.prompt(role, shown)[2:4]
            assert lessons == ("Lesson: avoid 8 * 8\n", "Lesson: make 3 * 8\n")
    for role in ("value", "judge", "io", "reflect"):
        assert TASK.prompt(role, state) == TASK.prompt(role, ROOT)
    assert TASK.with_reflections(state, []).reflections == ()


def test_examples_of_reflections_are_failures_and_their_steps_right() -> None:
    for numbers, (*steps, answer, lesson) in examples(TASK.templates.preamble("reflect")):
        state = Position.start(numbers)
        for line in steps:
            (step,) = read("step", state, line)
            assert line == f"Step: {step.text}"
            state = step.state
        assert answer == f"Answer: {state.numbers[0].expression} = {state}"
        assert state.is_final and not VERIFIER.promise(Problem("some", numbers), state)
        assert lesson.startswith("Lesson: ")


def test_an_unknown_role_is_refused() -> None:
    with pytest.raises(ValueError, match=r"role='guess' must be one of propose, step, .*, choose"):
        TASK.prompt("guess", ROOT)
    with pytest.raises(ValueError, match="role='value' must be one of propose, step, io, cot"):
        TASK.parse("value", ROOT, "sure")


def examples(constant: str) -> Iterator[tuple[tuple[int, ...], list[str]]]:
    """Yield, for each example of a prompt, its numbers and the lines that follow."""
    _, *blocks = constant.strip().split("\n\n")
    for block in blocks:
        first, *lines = block.split("\n")
        yield tuple(map(int, first.removeprefix("Numbers: ").split())), lines


def test_examples_of_proposals_are_right() -> None:
    for numbers, (_, *lines) in examples(TASK.templates.preamble("propose")):
        steps = read("propose", Position.start(numbers), "\n".join(lines))
        assert [step.text for step in steps] == lines


@pytest.mark.parametrize(
    "constant",
    [TASK.templates.preamble("step"), TASK.templates.preamble("io")],
    ids=["steps", "solve"],
)
def test_examples_of_solutions_are_right(constant: str) -> None:
    for numbers, (*steps, answer) in examples(constant):
        state = Position.start(numbers)
        for line in steps:
            (step,) = read("step", state, line)
            assert line == f"Step: {step.text}"
            state = step.state
        assert not steps or state == left("24")
        assert VERIFIER.check(Problem("some", numbers), answer.removeprefix("Answer: "))


def test_examples_of_verdicts_are_right() -> None:
    for numbers, (*answer, verdict) in examples(TASK.templates.preamble("value")):
        state = Position.start(numbers)
        is_right = count_solutions(state.values) > 0
        if answer:
            is_right = VERIFIER.check(Problem("some", numbers), answer[0].removeprefix("Answer: "))
        assert verdict in ("Verdict: likely", f"Verdict: {'sure' if is_right else 'impossible'}")


def test_examples_of_judgements_are_right_and_balanced() -> None:
    judged = []
    for numbers, (*answer, judgement) in examples(TASK.templates.preamble("judge")):
        is_right = count_solutions(tuple(map(Fraction, numbers))) > 0
        if answer:
            is_right = VERIFIER.check(Problem("some", numbers), answer[0].removeprefix("Answer: "))
        assert judgement == f"Makes 24:{TASK.yes_no[0 if is_right else 1]}"
        judged.append(is_right)
    assert 2 * sum(judged) == len(judged)


def test_examples_of_votes_are_right() -> None:
    for block in TASK.templates.preamble("vote").strip().split("\n\n")[1:]:
        *lines, vote = [line.partition(": ")[2] for line in block.split("\n")]
        options = [
            line.endswith("= 24") or count_solutions(left(line).values) > 0 for line in lines
        ]
        assert options == [i == int(vote) for i in range(1, len(options) + 1)]
    assert VERIFIER.check(Problem("some", (1, 3, 8, 14)), "(14 - 8) * (1 + 3) = 24")


def test_no_example_is_a_puzzle() -> None:
    puzzles = set(solvable_puzzles())
    for constant in CONSTANTS.values():
        if constant != TASK.templates.preamble("vote"):  # its options have at most three numbers
            assert puzzles.isdisjoint(tuple(sorted(numbers)) for numbers, _ in examples(constant))
