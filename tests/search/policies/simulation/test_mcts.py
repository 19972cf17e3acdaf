import math
import random

import pytest

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.budget import Budget
from treeshare.search.evaluators.prompted import Heuristic
from treeshare.search.expanders import Choose
from treeshare.search.policies.simulation.mcts import MCTS


def logprob(prompt, text):
    return -3 * random.Random(f"{prompt} -> {text}").random()


class PlainNode:
    def __init__(self, state, prior=None):
        self.state = state
        self.prior = prior
        self.children = None  # None before the expansion
        self.visits = 0
        self.total = 0.0


class PlainMCTS:
    """The sequential textbook algorithm, written without anything of search/."""

    def __init__(self, task, selection, c, depth=math.inf):
        self.task = task
        self.selection = selection
        self.c = c
        self.depth = depth
        self.root = PlainNode(("p",))

    def visit(self, node, depth=0):
        is_open = not self.task.is_terminal(node.state) and depth < self.depth
        if not is_open or (node.visits == 0 and node is not self.root):
            value = self.task.heuristic(node.state)
        else:
            if node.children is None:
                node.children = self.expand(node)
            value = self.visit(self.pick(node), depth + 1) if node.children else 0.0
        node.visits += 1
        node.total += value
        return value

    def expand(self, node):
        prompt = "".join(self.task.prompt("choose", node.state))
        moves = [(logprob(prompt, move.text), move) for move in self.task.moves(node.state)]
        total = sum(math.exp(weight) for weight, _ in moves)
        moves.sort(key=lambda pair: -pair[0])
        return [PlainNode(move.state, math.exp(weight) / total) for weight, move in moves]

    def pick(self, node):
        best, best_score = None, None
        for child in node.children:  # in order of decreasing prior
            if self.selection == "puct":
                mean = child.total / child.visits if child.visits else 0.5
                bonus = self.c * child.prior * math.sqrt(node.visits) / (1 + child.visits)
                score = mean + bonus
            elif child.visits == 0:
                return child
            else:
                mean = child.total / child.visits
                score = mean + self.c * math.sqrt(math.log(node.visits) / child.visits)
            if best is None or score > best_score:
                best, best_score = child, score
        return best

    def statistics(self):
        found, queue = {}, [self.root]
        while queue:
            node = queue.pop()
            found[node.state] = (node.visits, node.total)
            queue += node.children or []
        return found


def search(run, task, policy, **context):
    outcome = run(
        policy,
        engine=context.pop("engine", None) or MockEngine(score=logprob),
        task=task,
        expander=Choose(),
        evaluator=Heuristic(),
        **context,
    )
    assert outcome.error is None
    return outcome


@pytest.mark.parametrize("depth", [None, 2])
@pytest.mark.parametrize(("selection", "c"), [("uct", math.sqrt(2)), ("uct", 0.3), ("puct", 1.5)])
@pytest.mark.parametrize("length", [1, 4, 6])
def test_one_at_a_time_is_the_textbook_algorithm(length, selection, c, depth, run, RandomTree):
    task = RandomTree(length=length)
    outcome = search(run, task, MCTS(200, selection=selection, c=c, depth=depth))
    plain = PlainMCTS(task, selection, c, depth or math.inf)
    for _ in range(200):
        plain.visit(plain.root)
    found = {node.state: (node.visits, node.value_sum) for node in outcome.graph}
    assert found.keys() == plain.statistics().keys()
    for state, (visits, total) in plain.statistics().items():
        assert found[state] == (visits, pytest.approx(total, abs=1e-9))


@pytest.mark.parametrize("selection", ["uct", "puct"])
@pytest.mark.parametrize("parallel", [1, 2, 7, 64, 300])
@pytest.mark.parametrize("length", [1, 3, 5])
def test_visits_and_values_are_conserved(length, parallel, selection, run, RandomTree):
    outcome = search(run, RandomTree(length=length), MCTS(150, parallel, selection=selection))
    assert outcome.graph.root.visits == 150
    for node in outcome.graph:
        own = node.visits - sum(child.visits for child in node.children)
        backed_up = node.value_sum - sum(child.value_sum for child in node.children)
        assert own >= 0
        if node.children:  # evaluated when it was new, then passed through
            assert own == 0 if node.parent is None else own >= 1
        if node.children or node.is_terminal:
            assert backed_up == pytest.approx(own * (node.value or 0.0))
        elif node.visits:  # a dead end's later visits count 0
            assert 0 <= backed_up <= own * (node.value or 0.0) + 1e-9


def test_simulations_in_flight_spread_over_the_children(run, Digits, recording):
    engine = recording(MockEngine(score=logprob))
    outcome = search(run, Digits(base=4), MCTS(4, batch_size=4, selection="uct"), engine=engine)
    assert [node.visits for node in outcome.graph.root.children] == [1, 1, 1, 1]
    assert len(engine.requests) == 1  # four simulations met at the root and share its expansion


def test_simulations_that_meet_at_a_leaf_share_its_expansion(run, Digits, recording):
    class Corridor(Digits):
        def moves(self, state):
            return super().moves(state)[1:2]

    engine = recording(MockEngine(score=logprob))
    outcome = search(run, Corridor(length=3), MCTS(30, batch_size=6), engine=engine)
    assert [node.text for node in outcome.graph] == ["", "1", "1", "1"]
    assert len(engine.requests) == 3
    assert outcome.graph.root.visits == 30
    assert outcome.ranked == [outcome.graph.nodes[-1]]


@pytest.mark.parametrize("parallel", [1, 4])
def test_a_dead_end_is_asked_once_and_counts_zero(parallel, run, Digits, recording):
    class DeadEnds(Digits):
        def moves(self, state):
            return super().moves(state) if len(state) == 1 else []

    engine = recording()
    task = DeadEnds(length=5)
    outcome = search(run, task, MCTS(50, parallel, selection="uct"), engine=engine)
    assert len(outcome.graph) == 5
    for node in outcome.graph.nodes[1:]:
        if node.text != "0":
            assert 0 <= node.value_sum <= node.value
    assert len(engine.requests) == 1  # a state without moves needs no request


@pytest.mark.parametrize("parallel", [1, 4])
def test_unreadable_replies_are_not_asked_for_again(parallel, run, recording):
    engine = recording(MockEngine(["what?"]))
    outcome = run(MCTS(40, parallel), engine=engine)
    assert len(engine.requests) == 1
    assert outcome.ranked == [outcome.graph.root]
    assert (outcome.graph.root.visits, outcome.graph.root.value_sum) == (40, 0.0)


def test_terminal_leaves_back_their_value_up_again_without_requests(run, Digits, recording):
    engine = recording(MockEngine(score=logprob))
    policy = MCTS(500, batch_size=3, selection="uct")
    outcome = search(run, Digits(length=1), policy, engine=engine)
    assert len(engine.requests) == 1
    root = outcome.graph.root
    assert root.visits == sum(child.visits for child in root.children) == 500
    for child in root.children:
        assert child.value_sum == pytest.approx(child.visits * child.value)
    assert outcome.ranked == sorted(root.children, key=lambda child: -child.value)
    assert outcome.ranked[0].visits == max(child.visits for child in root.children)


def test_a_terminal_root_is_valued_itself(run, Digits):
    class Solved(Digits):
        def is_terminal(self, state):
            return True

    outcome = search(run, Solved(), MCTS(5))
    root = outcome.graph.root
    assert outcome.ranked == [root]
    assert (root.visits, root.value_sum) == (5, pytest.approx(5 * root.value))


def test_unvisited_children_are_tried_most_probable_first(run, Digits):
    task = Digits(base=4)
    for simulations in range(1, 5):
        outcome = search(run, task, MCTS(simulations, selection="uct"))
        visits = [node.visits for node in outcome.graph.root.children]
        assert visits == [1] * simulations + [0] * (4 - simulations)
    priors = [node.prior for node in outcome.graph.root.children]
    assert priors == sorted(priors, reverse=True)


def test_without_a_terminal_node_the_most_visited_path_is_followed(run, Digits):
    class Endless(Digits):
        def is_terminal(self, state):
            return False

    outcome = search(run, Endless(), MCTS(60))
    (node,) = outcome.ranked
    assert node.depth >= 2
    for step in node.path[1:]:
        assert step.visits == max(sibling.visits for sibling in step.parent.children)
    assert all(child.visits == 0 for child in node.children)


def test_a_depth_limit_of_the_budget_is_a_horizon_and_no_dead_end(run, Digits):
    by_budget = search(run, Digits(), MCTS(60), budget=Budget(depth=2))
    by_policy = search(run, Digits(), MCTS(60, depth=2))
    statistics = [
        [(node.state, node.visits, node.value_sum) for node in outcome.graph]
        for outcome in (by_budget, by_policy)
    ]
    assert statistics[0] == statistics[1]
