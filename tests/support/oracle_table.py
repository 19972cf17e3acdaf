"""Prints which share of puzzles each policy solves when the evaluator is the oracle.

    python tests/support/oracle_table.py [--limit 20] [--share 0.5] [--length 3]

Tasks and policies have their defaults, and a scripted model (oracle_model.py) is right in a share
of the cases. So the table shows whether the defaults let a search reach a solution.
"""

import argparse
from dataclasses import replace
from functools import cache

from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from oracle_model import OracleModel
from places import DATA
from task_options import task_options

from treeshare.experiments.results.markdown import markdown_table
from treeshare.experiments.runs.config import prepare
from treeshare.search.scheduler import Scheduler

POLICIES = ("tot_bfs", "beam", "mcts", "best_first", "tot_dfs")
GAMES = DATA / "tot/mini0505_0_100_5.json"
TASKS = {
    "game24": ["task=game24"],
    "countdown, 4 numbers": ["task=countdown", "task.numbers=4"],
    "countdown": ["task=countdown"],
    "blocksworld": ["task=blocksworld"],
    "blocksworld, 5 blocks, 6 moves": ["task=blocksworld", "task.blocks=5", "task.moves=6"],
    "crosswords, 2 rows given": ["task=crosswords", f"task.path={GAMES}", "task.given=2"],
    "crosswords": ["task=crosswords", f"task.path={GAMES}"],
    "math": task_options("math"),
    "sorting": ["task=sorting"],
    "set_intersection": ["task=set_intersection"],
    "reasoning_gym": ["task=reasoning_gym", "task.dataset=chain_sum"],
}
FEW = {"math": 4}  # problems of the task's file


def solved(name, limit, share=0.5, length=3):
    """By policy, the share of problems whose first answer is right."""
    limit = min(limit, FEW.get(name, limit))
    setup = prepare(composed("evaluator=oracle", *TASKS[name], f"task.limit={limit}"))
    model = OracleModel(setup, share, length)
    return {policy: _solved(replace(setup, policy=_made(policy)), model) for policy in POLICIES}


def composed(*overrides):
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        return compose("config", ["engine=mock", *overrides])


@cache
def _made(policy):
    return instantiate(composed(f"search={policy}").search)


def _solved(setup, model):
    problems = {problem.id: problem for problem in setup.problems}
    searches = ((setup.policy, setup.context(problem)) for problem in setup.problems)
    num_right = 0
    for outcome in Scheduler(model.engine).run(searches):
        if outcome.error is not None:
            raise outcome.error
        answer = setup.task.answer(outcome.ranked[0].state)
        problem = problems[outcome.problem_id]
        num_right += answer is not None and setup.verifier.check(problem, answer)
    return num_right / len(problems)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--limit", type=int, default=20, help="puzzles of a task")
    parser.add_argument("--share", type=float, default=0.5, help="how often the model is right")
    parser.add_argument("--length", type=int, default=3, help="steps of a solution in words")
    given = parser.parse_args()
    rows = []
    for name in TASKS:
        try:
            shares = solved(name, given.limit, given.share, given.length)
        except Exception as error:  # without the data or the extra of a task, the others go on
            rows.append([name, str(error), *[""] * (len(POLICIES) - 1)])
        else:
            rows.append([name, *(f"{share:.0%}" for share in shares.values())])
    print(markdown_table(["task", *POLICIES], rows))


if __name__ == "__main__":
    main()
