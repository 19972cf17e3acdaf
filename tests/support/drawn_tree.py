"""A small tree as a task, written as a drawing, and a drawing of the tree that was searched."""

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.evaluators.prompted import Heuristic
from treeshare.search.expanders import Choose
from treeshare.tasks.task import Step

# The whole tree: a step, its value, and * if it ends the problem. bb is a dead end.
TREE = """
a 0.6
    aa 0.2
        aaa 0.9 *
    ab 0.5
        aba 0.4 *
        abb 0.3 *
b 0.8
    ba 0.4
        baa 0.5 *
    bb 0.9
c 0.4
    ca 0.7 *
    cb 0.3
        cba 0.8 *
"""


class Drawn:
    """Such a tree as a task; a state is a node's name, the root's is empty and has value 0.5."""

    name = "drawn"
    sampling = {}  # noqa: RUF012

    def __init__(self, tree=TREE):
        lines = [line.split() for line in tree.strip().splitlines()]
        self.values = {name: float(value) for name, value, *_ in lines}
        self.terminal = {name for name, _, *star in lines if star}

    def root(self, problem):
        return ""

    def prompt(self, role, state):
        return (f"{role}\n", state)

    def is_terminal(self, state):
        return state in self.terminal

    def answer(self, state):
        return state

    def moves(self, state):
        return [Step(n, n) for n in self.values if n.startswith(state) and len(n) == len(state) + 1]

    def heuristic(self, state):
        return self.values.get(state, 0.5)


def drawing(graph):
    """The graph that was searched: per node its order of creation, value and visits. One of several
    parents stands below the first; + names the others."""
    lines = []
    nodes = graph.root.children[::-1]
    while nodes:
        node = nodes.pop()
        visits = f" n={node.visits} w={node.value_sum:.2f}" if node.visits else ""
        star = " *" if node.is_terminal else ""
        value = "-" if node.value is None else f"{node.value:.1f}"
        line = f"{node.text} #{node.id} {value}{visits}{star}"
        others = "".join(f" +#{parent.id}" for parent in node.parents[1:])
        lines.append("    " * (node.depth - 1) + line + others)
        nodes += [child for child in node.children[::-1] if child.parent is node]
    return "\n".join(lines)


def search(run, policy, task=None, **context):
    """The outcome of a search whose model finds all steps equally likely."""
    given = {
        "engine": MockEngine(["try b"], score=lambda prompt, text: -1.0),
        "task": task or Drawn(),
        "expander": Choose(),
        "evaluator": Heuristic(),
    }
    outcome = run(policy, **given | context)
    assert outcome.error is None
    return outcome
