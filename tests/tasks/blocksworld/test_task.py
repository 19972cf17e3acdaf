"""Blocksworld: the rules against another simulator, distances, replies and plans."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treeshare.tasks.blocksworld.rules import (
    Move,
    apply,
    count_in_place,
    distances,
    legal_moves,
    run,
    sort_stacks,
    stacks_to_text,
)
from treeshare.tasks.blocksworld.task import (
    Blocksworld,
    BlocksworldVerifier,
    Puzzle,
    read_plan,
)
from treeshare.tasks.task import (
    HasGrades,
    HasHeuristic,
    HasJudgement,
    HasMoves,
    HasValues,
    ParseFailure,
    Problem,
    Task,
)

TASK = Blocksworld(limit=5)
VERIFIER = BlocksworldVerifier()
PROBLEM = Problem("some", Puzzle(("AC", "B"), ("ABC",)))
ROOT = TASK.root(PROBLEM)
PROMPTS = {
    role: TASK.templates.preamble(role) for role in ("propose", "step", "io", "value", "judge")
}
PLAN = "move C to the table; move B onto A; move C onto B"


def below(stacks):
    """Return, for each block, what is below it, which is another notation of the stacks."""
    return {block: under for stack in stacks for under, block in pairwise(("table", *stack))}


def successors(on):
    """Yield the successors by PDDL's rules: only a block with nothing on it can be moved."""
    clear = set(on) - set(on.values())
    for block in clear:
        for onto in clear | {"table"}:
            if onto not in (block, on[block]):
                yield {**on, block: onto}


def test_is_a_task():
    for protocol in (Task, HasMoves, HasValues, HasJudgement, HasHeuristic):
        assert isinstance(TASK, protocol)
    assert isinstance(VERIFIER, HasGrades)


@pytest.mark.parametrize(("blocks", "ways"), [(3, 13), (4, 73), (5, 501)])
def test_moves_and_distances_are_those_of_another_simulator(blocks, ways):
    start = ("ABCDE"[:blocks],)
    found = distances(start)
    assert len(found) == ways and max(found.values()) == 2 * blocks - 2
    frontier, far, seen = [below(start)], 0, {}
    while frontier:
        for on in frontier:
            seen.setdefault(frozenset(on.items()), far)
        frontier = [
            after
            for on in {frozenset(on.items()) for on in frontier}
            for after in successors(dict(on))
            if frozenset(after.items()) not in seen
        ]
        far += 1
    assert {frozenset(below(stacks).items()): d for stacks, d in found.items()} == seen
    for stacks in found:
        after = [apply(stacks, move) for move in legal_moves(stacks)]
        assert len(set(after)) == len(after)
        assert [below(s) for s in after if s] and sorted(map(str, after)) == sorted(
            str(s) for s in found if below(s) in list(successors(below(stacks)))
        )


def test_distances_do_not_depend_on_names():
    for start in (("CB", "DA"), ("B", "CAD")):
        for stacks, far in distances(start).items():
            assert distances(stacks)[start] == far


@pytest.mark.parametrize(
    "move",
    [
        Move("A", "B"),  # C is on A
        Move("C", "A"),  # it stands there
        Move("B", "table"),  # it stands there
        Move("C", "C"),
        Move("C", "D"),
        Move("D", "table"),
    ],
)
def test_an_illegal_move_is_refused(move):
    assert apply(("AC", "B"), move) is None
    assert run(("AC", "B"), [move, Move("C", "table")]) is None
    assert run(("AC", "B"), [Move("C", "B"), Move("C", "table"), Move("A", "A")]) is None


def test_blocks_in_place_have_all_below_them_in_place():
    assert count_in_place(("ABC",), ("ABC",)) == 3
    assert count_in_place(("AC", "B"), ("ABC",)) == 1
    assert count_in_place(("BC", "A"), ("ABC",)) == 1
    assert count_in_place(("CBA",), ("ABC",)) == 0
    assert count_in_place(("AB", "C"), ("A", "C", "B")) == 2


@pytest.mark.parametrize(("blocks", "moves"), [(3, 1), (3, 4), (4, 3), (6, 5)])
def test_puzzles_have_the_distance_asked_for(blocks, moves):
    problems = Blocksworld(blocks=blocks, moves=moves, limit=6).problems()
    assert len({problem.id for problem in problems}) == 6
    for problem in problems:
        start, goal = problem.data
        assert sorted("".join(start)) == sorted("".join(goal)) == list("ABCDEF"[:blocks])
        assert distances(start)[goal] == moves
        assert start == sort_stacks(start) and goal == sort_stacks(goal)


def test_the_seed_and_nothing_else_fixes_the_puzzles():
    first = Blocksworld(limit=3, seed=7).problems()
    assert first == Blocksworld(limit=9, seed=7).problems()[:3]
    assert first != Blocksworld(limit=3, seed=8).problems()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blocks": 2}, "blocks=2 must be from 3 to 6"),
        ({"blocks": 7}, "blocks=7 must be from 3 to 6"),
        ({"moves": 0}, "moves=0 must be from 1 to 6"),
        ({"moves": 7}, "moves=7 must be from 1 to 6"),
        ({"blocks": 3, "moves": 4, "limit": 99}, "limit=99 is too many: 20,000 draws .* after .*"),
    ],
)
def test_arguments_out_of_bound_are_refused(arguments, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        Blocksworld(**arguments)


def test_a_search_that_follows_the_oracle_finds_a_shortest_plan():
    for problem in TASK.problems():
        state = TASK.root(problem)
        while not TASK.is_terminal(state):
            state = next(
                move.state for move in TASK.moves(state) if VERIFIER.promise(problem, move.state)
            )
        assert len(state.moves) == 4 and TASK.heuristic(state) == 1.0
        assert VERIFIER.check(problem, TASK.answer(state))
        assert VERIFIER.grades(problem, state) == {"shortest": 1.0}


def test_every_move_can_be_read_as_a_step():
    for first in TASK.moves(ROOT):
        for move in TASK.moves(first.state):
            (step,) = TASK.parse("step", first.state, f"{move.text} A B C)")
            assert step.state == move.state and f" {step.text} (now:" == move.text
    prompt = "".join(TASK.prompt("choose", ROOT))
    for move in TASK.moves(ROOT):
        assert "".join(TASK.prompt("choose", move.state)).startswith(prompt + move.text)


@pytest.mark.parametrize(
    "line",
    [
        "move C onto B",
        "Move C on B.",
        "- move block C on top of B (now: A | B C)",
        "Step 2: move c onto b",
        "1) move C to B",
    ],
)
def test_a_step_is_read(line):
    for role in ("propose", "step"):
        (step,) = TASK.parse(role, ROOT, line)
        assert (step.text, step.state.stacks) == ("move C onto B", ("A", "BC"))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty reply"),
        ("do not move C onto B", "not a move such as `move A onto B`"),
        ("move C onto", "not a move such as `move A onto B`"),
        ("move C onto BA", "not a move such as `move A onto B`"),
        ("move A onto B", "move A onto B is not legal"),
        ("move B to the table\nmove", "move B to the table is not legal"),
    ],
)
def test_a_reply_without_a_step_is_a_failure_with_a_reason(text, reason):
    for role in ("propose", "step"):
        assert TASK.parse(role, ROOT, text) == ParseFailure(role, text, reason)


@pytest.mark.parametrize(
    "text",
    [
        f" {PLAN}",
        f"Step: move C to the table\nPlan: {PLAN.upper()}.",
        "move C to the table, then move B on A, and move C on B",
        "1. Move C to the table\n2. Move B onto A\n3. Move C onto B\n",
        f"{PLAN.replace('; ', chr(10))}\n[PLAN END]\nand more",
        PLAN.replace(" ", "\u00a0").replace(";", "\t；\u200b"),
        f"{PLAN.replace('; ', chr(0x2028))}\u3000",
    ],
)
def test_a_plan_is_read(text):
    for role in ("io", "cot"):
        (step,) = TASK.parse(role, ROOT, text)
        assert TASK.is_terminal(step.state) and step.text == TASK.answer(step.state) == PLAN
        assert VERIFIER.promise(PROBLEM, step.state) == TASK.heuristic(step.state) == 1


@pytest.mark.parametrize(
    "text",
    [
        *("", "Plan:", "no plan", f"{PLAN}; fly", f"First {PLAN}", f"{PLAN} or not"),
        *("[PLAN END]", f"[PLAN END] {PLAN}", "unstack C from on top of A; put down C"),
        *(PLAN.replace("move", "ｍove ſ"), PLAN.replace("A", "À")),
    ],
)
def test_what_holds_anything_else_is_no_plan(text):
    for role in ("io", "cot"):
        assert isinstance(TASK.parse(role, ROOT, text), ParseFailure)
    assert read_plan(text) is None and not VERIFIER.check(PROBLEM, text)


@pytest.mark.parametrize(
    ("answer", "is_right"),
    [
        (PLAN, True),
        ("move C onto B; move C to the table; move B onto A; move C onto B", True),
        ("move B onto A; move C onto B", False),  # C is on A
        ("move C to the table; move B onto A", False),  # not there yet
        (f"{PLAN}; move C to the table", False),  # and away again
        ("move C to the table; move B onto A; move C onto A", False),
    ],
)
def test_verifier_table(answer, is_right):
    assert VERIFIER.check(PROBLEM, answer) is is_right
    (step,) = TASK.parse("io", ROOT, answer)
    assert VERIFIER.promise(PROBLEM, step.state) == is_right
    is_shortest = is_right and answer == PLAN
    assert VERIFIER.grades(PROBLEM, step.state) == {"shortest": float(is_shortest)}


def test_prompts_show_goal_and_blocks():
    child = TASK.moves(ROOT)[0].state
    (plan,) = TASK.parse("io", ROOT, PLAN)
    for role in (*TASK.sampling, "choose", "judge"):
        for state in (ROOT, child, plan.state):
            first, *rest = TASK.prompt(role, state)
            assert first.endswith("\n\n") and rest[0] == "Goal: A B C\n"
            assert all(segment.endswith("\n") for segment in rest[:-1])
    for role in ("value", "judge"):
        assert TASK.prompt(role, plan.state)[2:4] == ("Blocks: A C | B\n", f"Plan: {PLAN}\n")
    assert TASK.prompt("value", child)[2] == "Blocks: A | B C\n"
    with pytest.raises(ValueError, match=r"role='vote' must be one of propose, .*, judge"):
        TASK.prompt("vote", ROOT)
    with pytest.raises(ValueError, match="role='value' must be one of propose, step, io, cot"):
        TASK.parse("value", ROOT, "sure")


def test_examples_in_the_prompts_are_right():
    def stacks(text):
        return sort_stacks(stack.replace(" ", "") for stack in text.split(" | "))

    for text in PROMPTS.values():
        for block in text.strip().split("\n\n")[1:]:
            goal, blocks = (stacks(t) for t in re.findall(r"(?:Goal|Blocks): (.*)", block))
            assert not set("".join(goal)) & set("ABCDEF")
            root = TASK.root(Problem("", Puzzle(blocks, goal)))
            plans = re.findall("Plan: (.*)", block)
            is_right = all(run(blocks, read_plan(plan)) == goal for plan in plans)
            assert is_right != ("impossible" in block or (bool(plans) and ": no" in block))
            state = root
            for line in re.findall("Step: (.*)", block):
                (step,) = TASK.parse("step", state, line)
                state = step.state
                assert line == f"{step.text} (now: {stacks_to_text(state.stacks)})"
            if text is PROMPTS["propose"]:
                lines = block.partition("Moves:\n")[2]
                steps = TASK.parse("propose", root, lines)
                assert [step.text for step in steps] == lines.split("\n")
            if not plans and text in (PROMPTS["value"], PROMPTS["judge"]):
                assert (distances(blocks)[goal] <= 2) == ("sure" in block or "yes" in block)


def test_a_verdict_is_read():
    assert TASK.parse_value(ROOT, "It is Likely.") == 0.5
    assert isinstance(TASK.parse_value(ROOT, "not impossible but Likely"), ParseFailure)
    assert isinstance(TASK.parse_value(ROOT, "unlikely"), ParseFailure)


places = st.integers(0, len(PLAN))
noise = st.text(alphabet="ABCmove ontable;.")
spoilt = st.builds(lambda i, text, j: PLAN[:i] + text + PLAN[j:], places, noise, places)


@given(st.text() | noise | spoilt)
def test_nothing_raises_and_nothing_wrong_passes(text):
    for role in ("propose", "step", "io", "cot"):
        assert isinstance(TASK.parse(role, ROOT, text), list | ParseFailure)
    TASK.parse_value(ROOT, text)
    if VERIFIER.check(PROBLEM, text):
        words = re.sub(" +", " ", text.lower())
        moves = re.findall(r"move(?: block)? (\w) (?:onto|on|to|on top of) (?:the )?(\w+)", words)
        on = below(("AC", "B"))
        for block, onto in moves:
            after = {**on, block.upper(): onto if onto == "table" else onto.upper()}
            assert after in list(successors(on))
            on = after
        assert on == below(("ABC",))
