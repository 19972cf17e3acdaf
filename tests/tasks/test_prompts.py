"""Golden digests of every prompt, since the embedded model was trained on the exact texts.

A change of one character changes the replies and the figures of the documentation. After
a change on purpose, write the digests that the failing test shows into `prompt_digests.json`.
"""

import hashlib
import json
from pathlib import Path

import pytest
from task_options import FILES

from treeshare import tasks

DIGESTS = json.loads(Path(__file__).with_name("prompt_digests.json").read_text())
STEPS = ("propose", "step", "io", "cot", "value", "judge")
ARITHMETIC = (*STEPS, "choose", "vote", "reflect", "feedback", "refine")
MERGING = ("split", "solve", "merge", "improve", "step", "io", "cot")


def step(task, role, state, text):
    """Return the state after the first step of a reply."""
    steps = task.parse(role, state, text)
    assert isinstance(steps, list), steps
    return steps[0].state


def arithmetic(task):
    """Return states by role: the root, one with a step and a lesson, a terminal one, an answer."""
    root = task.root(task.problems()[0])
    middle = task.with_reflections(task.moves(root)[2].state, ["avoid large numbers"])
    final = middle
    while task.moves(final):
        final = task.moves(final)[0].state
    numbers = " + ".join(map(str, root.puzzle))
    claimed = step(task, "io", root, f"Answer: {numbers}")
    single = [root, middle, final, claimed]
    states = dict.fromkeys(ARITHMETIC, single)
    states["vote"] = [tuple(single)]
    states["feedback"] = [claimed]
    states["refine"] = [((claimed, "wrong, look\nagain"),), ((claimed, "no"), (claimed, "nor"))]
    return states


def blocksworld(task):
    root = task.root(task.problems()[0])
    middle = task.moves(root)[0].state
    claimed = step(task, "io", root, "move A onto B; move C to the table")
    return {role: [root, middle, claimed] for role in (*STEPS, "choose")}


def crosswords(task):
    root = task.root(task.problems()[0])
    middle = step(task, "step", root, "h1. scent")
    full = step(task, "io", root, "Rows: heart ember abuse resin trend")
    return {role: [root, middle, full] for role in STEPS}


def math(task):
    root = task.root(task.problems()[0])
    middle = step(task, "step", root, "First, 2 + 3 = 5.")
    claimed = step(task, "io", root, "Answer: 5")
    return {role: [root, middle, claimed] for role in STEPS[1:]}


def merging(task):
    root = task.root(task.problems()[0])
    claimed = step(task, "io", root, "[1, 2, 3]")
    states = {role: [root, claimed] for role in MERGING}
    states["merge"] = [(claimed, claimed)]
    states["improve"] = [claimed]
    return states


CASES = {
    "game24": (lambda: tasks.Game24(limit=1), arithmetic),
    "countdown": (lambda: tasks.Countdown(limit=1), arithmetic),
    "blocksworld": (lambda: tasks.Blocksworld(limit=1), blocksworld),
    "crosswords": (lambda: tasks.Crosswords(f"{FILES}/crosswords.json"), crosswords),
    "math": (lambda: tasks.MathProblems(f"{FILES}/math.jsonl"), math),
    "sorting": (lambda: tasks.Sorting(limit=1), merging),
    "set_intersection": (lambda: tasks.SetIntersection(limit=1), merging),
}


def digests(name):
    """Return, for each role of a task, a digest of its prompts' segments for some states."""
    make, states_of = CASES[name]
    task = make()
    return {
        role: hashlib.sha256(
            json.dumps([task.prompt(role, state) for state in states]).encode()
        ).hexdigest()[:16]
        for role, states in states_of(task).items()
    }


@pytest.mark.parametrize("name", CASES)
def test_prompts_are_what_they_were(name):
    assert digests(name) == DIGESTS[name]


@pytest.mark.parametrize("name", CASES)
def test_the_digests_hold_every_role(name):
    task = CASES[name][0]()
    with pytest.raises(ValueError, match="role='none' must be one of ") as error:
        task.prompt("none", task.root(task.problems()[0]))
    roles = str(error.value).partition(" must be one of ")[2].split(", ")
    assert set(roles) == set(DIGESTS[name])
