"""With the defaults of tasks and policies a search reaches the solutions."""

import random

import pytest
from oracle_table import GAMES, POLICIES, TASKS, composed, solved
from task_options import task_options

import treeshare as ts
from treeshare.experiments.runs.config import prepare
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.tasks.crosswords.task import SLOTS

LIMITS = {"countdown": 3, "crosswords": 5, "reasoning_gym": 4}  # slower to make than others


@pytest.mark.parametrize("name", TASKS)
def test_the_oracle_solves_nine_of_ten(name):
    if name.startswith("crosswords") and not GAMES.exists():
        pytest.skip("needs Tree of Thoughts' crosswords in $TREESHARE_DATA")
    if name == "reasoning_gym":
        pytest.importorskip(name, reason="needs the extra `reasoning-gym`")
    shares = solved(name, LIMITS.get(name, 10))
    assert list(shares) == list(POLICIES)
    assert min(shares.values()) >= 0.9, shares


@pytest.mark.parametrize(
    ("task", "options", "depth"),
    [
        ("game24", [], 3),
        ("countdown", ["task.numbers=5"], 4),
        ("countdown", ["task.numbers=3"], 2),
        ("blocksworld", [], 4),
        ("blocksworld", ["task.moves=2"], 2),
        ("crosswords", [], 9),
        ("crosswords", ["task.given=2"], 7),
        ("math", [], 16),
        ("sorting", [], 4),
        ("set_intersection", [], 4),
        ("reasoning_gym", [], 8),
    ],
)
def test_a_task_says_how_deep_to_search(task, options, depth):
    setup = prepare(composed(*task_options(task), *options, "task.limit=1"))
    assert setup.context(setup.problems[0]).depth == depth


@pytest.mark.parametrize("given", range(5))
def test_no_board_takes_more_words_than_the_crosswords_say(given):
    setup = prepare(composed(*task_options("crosswords"), f"task.given={given}", "task.limit=1"))
    (problem,) = setup.problems
    most, draw = 0, random.Random(given)
    for _ in range(300):
        board, count = setup.task.root(problem), 0
        while not board.is_full:
            slot = draw.choice([slot for slot in SLOTS if "_" in board.word(slot)])
            board, count = board.fill(slot, board.word(slot).replace("_", "a")), count + 1
        most = max(most, count)
    assert most == setup.task.max_steps(problem)


def test_the_command_says_what_to_raise_if_nothing_was_reached(treeshare):
    countdown = ["engine=mock", "task=countdown", "task.limit=2"]
    shallow = treeshare(*countdown, "search.depth=2").out.splitlines()
    assert shallow[-1] == "no search reached a terminal state: raise search.depth (2)"
    few = treeshare(*countdown, "search=mcts", "search.num_simulations=3").out.splitlines()
    assert few[-1] == (
        "no search reached a terminal state: raise search.depth (4) or search.num_simulations (3)"
    )
    assert "terminal" not in treeshare(*countdown).out


def test_python_has_the_same_defaults():
    run = ts.solve(ts.tasks.Countdown(limit=2), engine=MockEngine(), policy=ts.search.ToTBFS())
    assert all(row.reached_terminal for row in run.rows)
    shallow = ts.search.ToTBFS(depth=2)
    run = ts.solve(ts.tasks.Countdown(limit=2), engine=MockEngine(), policy=shallow)
    assert not any(row.reached_terminal for row in run.rows)
    assert str(run).endswith("; no search reached a terminal state")
