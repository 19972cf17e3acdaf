import math
import random

import pytest
from drawn_tree import drawing, search

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.graph import SearchGraph
from treeshare.search.policies.simulation.rap import RAP, means_to_go, reward


def logprob(prompt, text):
    return -3 * random.Random(f"{prompt} -> {text}").random()


def test_reward():
    graph = SearchGraph(0)
    step = graph.add(graph.root, "", 1, is_terminal=False)
    step.prior, step.value = 0.25, 0.64
    assert reward(step, 0.5) == pytest.approx(0.5 * 0.8)
    assert reward(step, 0.0) == 0.64
    assert reward(step, 1.0) == 0.25
    step.value = -3.0
    assert reward(step, 0.5) == 0.0
    step.prior, step.value = None, 1.0
    graph.add(graph.root, "", 2, is_terminal=False)
    assert reward(step, 1.0) == 0.5  # one of two


def test_means_to_go():
    assert means_to_go([0.2, 0.4, 0.9]) == pytest.approx([0.5, 0.65, 0.9])
    assert means_to_go([]) == []


class PlainRAP:
    """llm-reasoners' algorithm on its own terms: lists of returns, a simulation phase apart."""

    def __init__(self, task, depth, alpha=0.5, c=1.0):
        self.task, self.depth, self.alpha, self.c = task, depth, alpha, c
        self.root = self.node(("p",), 0.0, 0)

    def node(self, state, own, depth):
        return {"state": state, "own": own, "depth": depth, "kids": None, "returns": []}

    def is_end(self, node):
        return (
            self.task.is_terminal(node["state"])
            or node["depth"] >= self.depth
            or node["kids"] == []
        )

    def expand(self, node):
        prompt = "".join(self.task.prompt("choose", node["state"]))
        moves = [(logprob(prompt, move.text), move) for move in self.task.moves(node["state"])]
        total = sum(math.exp(weight) for weight, _ in moves)
        node["kids"] = []
        for weight, move in sorted(moves, key=lambda pair: -pair[0]):
            prior, value = math.exp(weight) / total, self.task.heuristic(move.state)
            own = prior**self.alpha * value ** (1 - self.alpha)
            node["kids"].append(self.node(move.state, own, node["depth"] + 1))

    def score(self, parent, node):
        q = max(node["returns"]) if node["returns"] else node["own"]
        log_n = math.log(len(parent["returns"]))
        return q + self.c * math.sqrt(log_n / max(1, len(node["returns"])))

    def iterate(self):
        path = [self.root]
        while path[-1]["kids"]:
            parent = path[-1]
            path.append(max(parent["kids"], key=lambda kid: self.score(parent, kid)))
        while not self.is_end(path[-1]):
            self.expand(path[-1])
            if path[-1]["kids"]:
                path.append(max(path[-1]["kids"], key=lambda kid: kid["own"]))
        rewards = [node["own"] for node in path]
        if path[-1]["kids"] == []:
            rewards[-1] = 0.0
        for t, node in enumerate(path):
            node["returns"].append(sum(rewards[t:]) / len(rewards[t:]))

    def statistics(self):
        found, queue = {}, [self.root]
        while queue:
            node = queue.pop()
            found[node["state"]] = (len(node["returns"]), sum(node["returns"]))
            queue += node["kids"] or []
        return found


@pytest.mark.parametrize("depth", [2, 9])
@pytest.mark.parametrize("c", [1.0, 0.2])
@pytest.mark.parametrize("length", [1, 4, 6])
def test_one_at_a_time_is_the_authors_algorithm(length, c, depth, run, RandomTree):
    task = RandomTree(length=length)
    engine = MockEngine(score=logprob)
    outcome = search(run, RAP(100, c=c, depth=depth), task, engine=engine)
    plain = PlainRAP(task, depth, c=c)
    for _ in range(100):
        plain.iterate()
    expected = plain.statistics()
    assert {node.state for node in outcome.graph} == expected.keys()
    for node in outcome.graph.nodes[1:]:
        visits, total = expected[node.state]
        assert (node.visits, node.value_sum) == (visits, pytest.approx(total, abs=1e-9))


def test_whole_search(run):
    outcome = search(run, RAP(6))
    # first b √(0.8/3) = 0.516, then bb, a dead end: b gets (0.516 + 0) / 2 = 0.258
    # next a √(0.6/3), ab √(0.5/2), aba √(0.4/2): a gets (0.447 + 0.5 + 0.447) / 3 = 0.465
    tree = """
a #1 0.6 n=2 w=0.93
    aa #6 0.2
    ab #7 0.5 n=2 w=0.95
        aba #8 0.4 n=2 w=0.89 *
        abb #9 0.3 *
b #2 0.8 n=2 w=0.82
    ba #4 0.4 n=1 w=0.58
        baa #12 0.5 n=1 w=0.71 *
    bb #5 0.9 n=1 w=0.00
c #3 0.4 n=2 w=0.96
    ca #10 0.7 n=2 w=1.18 *
    cb #11 0.3
"""
    assert drawing(outcome.graph) == tree.strip()
    assert [node.text for node in outcome.ranked] == ["baa", "ca", "aba", "abb"]
    assert outcome.graph.root.visits == 6


def test_the_ranking_is_by_the_mean_reward_of_the_path(run):
    outcome = search(run, RAP(30))
    means = [means_to_go([reward(n, 0.5) for n in end.path[1:]])[0] for end in outcome.ranked]
    assert means == sorted(means, reverse=True)
    assert outcome.ranked[0].text == "aaa"


def test_simulations_in_flight_part_and_save_rounds(run):
    alone, together = search(run, RAP(12)), search(run, RAP(12, batch_size=3))
    assert together.rounds < alone.rounds
    assert together.graph.root.visits == 12
    first = search(run, RAP(3, batch_size=3))
    assert [node.visits for node in first.graph.root.children] == [1, 1, 1]


def test_a_task_without_end_is_cut_at_the_depth(run, Digits):
    class Endless(Digits):
        def is_terminal(self, state):
            return False

    outcome = search(run, RAP(depth=3), Endless())
    (node,) = outcome.ranked
    assert node.depth == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RAP(0), "num_simulations=0 must be at least 1"),
        (lambda: RAP(batch_size=0), "batch_size=0 must be at least 1"),
        (lambda: RAP(depth=0), "depth=0 must be at least 1"),
        (lambda: RAP(alpha=-0.1), "alpha=-0.1 must be at least 0"),
        (lambda: RAP(alpha=1.1), "alpha=1.1 must be at most 1"),
        (lambda: RAP(c=-1), "c=-1 must be at least 0"),
    ],
)
def test_parameters_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_root_without_children_has_no_reward_to_back_up(run):
    outcome = run(RAP(5, num_samples=2), engine=MockEngine(["I do not know"]))
    assert outcome.error is None
    assert outcome.ranked == [outcome.graph.root]
    assert outcome.parse_failures == 2
    assert (outcome.graph.root.visits, outcome.graph.root.value_sum) == (5, 0.0)
