"""A search on the tree engine gives the same tree alone and beside any number of others."""

import pytest
from babble import Babble

from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.search import (
    MCTS,
    Choose,
    Context,
    ProcessReward,
    Sample,
    Scheduler,
    ToTBFS,
    ValuePrompt,
)


def run(model, task, problems, policy, expander, evaluator):
    searches = [(policy, Context(task, p, expander, evaluator, seed=1)) for p in problems]
    outcomes = list(Scheduler(TreeEngine(model)).run(searches))
    assert all(outcome.error is None for outcome in outcomes)
    return {outcome.problem_id: outcome for outcome in outcomes}


def assert_same_tree(outcome, other):
    assert [node.state for node in outcome.graph] == [node.state for node in other.graph]
    assert [node.id for node in outcome.ranked] == [node.id for node in other.ranked]
    for node, twin in zip(outcome.graph, other.graph, strict=True):
        assert [child.id for child in node.children] == [child.id for child in twin.children]
        assert node.visits == twin.visits
        for name in ("value", "prior", "logprob", "value_sum"):
            assert getattr(node, name) == pytest.approx(getattr(twin, name), abs=1e-3), name


@pytest.mark.parametrize("num_others", [1, 6, 31])
@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
@pytest.mark.parametrize(
    ("policy", "expander", "evaluator"),
    [
        (ToTBFS(breadth=2, num_samples=3), Sample(), ValuePrompt(num_samples=2)),
        (MCTS(num_simulations=8, batch_size=3), Choose(width=3), ValuePrompt(mode="score")),
        (ToTBFS(breadth=2, num_samples=3), Sample(), ProcessReward(ask="?", seen="; ")),
    ],
    ids=["tot_bfs", "mcts", "process_reward"],
)
def test_same_tree_alone_and_cobatched(llama, policy, expander, evaluator, temperature, num_others):
    task = Babble(temperature)
    problems = task.problems()[: 1 + num_others]
    together = run(llama, task, problems, policy, expander, evaluator)
    for problem in (problems[0], problems[-1]):
        (alone,) = run(llama, task, [problem], policy, expander, evaluator).values()
        assert len(alone.graph) > 3
        assert_same_tree(alone, together[problem.id])
