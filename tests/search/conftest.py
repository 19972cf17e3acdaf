"""A synthetic task and a scripted engine, shared by the tests of search/ as fixtures."""

import random

import pytest

from treeshare.llm_backend.api import Generate
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.context import Context
from treeshare.search.evaluators.prompted import ValuePrompt
from treeshare.search.expanders import Propose
from treeshare.search.scheduler import Scheduler
from treeshare.tasks.task import ParseFailure, Problem, Step

ROLES = ("propose", "step", "choose", "io", "cot", "value", "vote", "reflect", "feedback", "refine")
ROLES += ("split", "solve", "merge", "improve", "judge")

MANY = ("vote", "merge")  # whose state is a tuple of states


class Noted(str):
    """A problem's id that carries reflections."""

    reflections: tuple[str, ...] = ()


class Digits:
    """Pick digits below `base` until one is 0 or `length` are picked.

    A state is the problem's id followed by the digits, all as text.
    """

    name = "digits"
    sampling = {role: {"max_tokens": 8} for role in ROLES}  # noqa: RUF012
    values = {"sure": 1.0, "likely": 0.5, "impossible": 0.0}  # noqa: RUF012
    yes_no = (" yes", " no")

    def __init__(self, length=3, base=4):
        self.length = length
        self.base = base

    def problems(self):
        return [Problem(f"p{i}", None) for i in range(40)]

    def root(self, problem):
        return (problem.id,)

    def prompt(self, role, state):
        if role not in ROLES:
            raise ValueError(f"digits has no role {role!r}")
        if role == "refine":
            return ("refine\n", *(f"{' '.join(tried)} : {feedback}\n" for tried, feedback in state))
        text = " | ".join(map(" ".join, state)) if role in MANY else " ".join(state)
        notes = () if role in MANY else getattr(state[0], "reflections", ())
        return (f"{role}\n", *(f"{note}\n" for note in notes), text)

    def solution(self, state):
        return tuple(state)

    def with_reflections(self, state, reflections):
        problem_id = Noted(state[0])
        problem_id.reflections = tuple(reflections)
        return (problem_id, *state[1:])

    def parse(self, role, state, text):
        digits = text.split()
        if not digits or not all(digit.isdigit() for digit in digits):
            return ParseFailure(role, text, "not digits")
        if role in ("io", "cot", "refine"):
            return [Step(d, (*state, *digits[: i + 1])) for i, d in enumerate(digits)]
        return [Step(digit, (*state, digit)) for digit in digits]

    def parse_merge(self, states, text):
        parsed = self.parse("io", states[0][:1], text)
        return parsed if isinstance(parsed, ParseFailure) else parsed[-1]

    def is_satisfied(self, state, feedback):
        return "0" in feedback.split()

    def is_terminal(self, state):
        return len(state) > 1 and (state[-1] == "0" or len(state) > self.length)

    def answer(self, state):
        return "".join(state[1:])

    def moves(self, state):
        return [Step(str(d), (*state, str(d))) for d in range(self.base)]

    def parse_value(self, state, text):
        return self.values.get(text, ParseFailure("value", text, "no verdict"))

    def parse_vote(self, states, text):
        return int(text) if text.isdigit() else ParseFailure("vote", text, "not an index")

    def heuristic(self, state):
        return random.Random(" ".join(state)).random()


class RandomTree(Digits):
    """Between none and `base` moves a state, at random (`base` at the root): has dead ends."""

    def moves(self, state):
        draw = random.Random("moves " + " ".join(state))
        return super().moves(state)[: draw.randint(0 if state[1:] else self.base, self.base)]


def scripted_reply(prompt, seed, k):
    """A reply fit for the prompt's role, fixed by the arguments; one in ten is unreadable."""
    draw = random.Random(repr((prompt, seed, k)))
    role, _, rest = prompt.partition("\n")
    if draw.random() < 0.1:
        return "what?"
    if role == "value":
        return draw.choice(list(Digits.values))
    if role == "vote":
        return str(draw.randrange(rest.count("|") + 1))
    if role == "step":
        return str(draw.randrange(4))
    digits = [str(draw.randrange(4)) for _ in range(3)]
    if role != "propose" and "0" in digits:
        digits = digits[: digits.index("0") + 1]
    return " ".join(digits)


class RecordingEngine:
    """Passes all on and keeps the batches. Raises in place of batch number `fail_at`."""

    def __init__(self, engine, fail_at=None):
        self.engine = engine
        self.fail_at = fail_at
        self.batches = []
        self.usages = []  # of each batch

    @property
    def requests(self):
        return [request for batch in self.batches for request in batch]

    @property
    def has_seeds(self):
        return any(isinstance(request, Generate) for request in self.requests)

    @property
    def capabilities(self):
        return self.engine.capabilities

    def execute(self, requests):
        if len(self.batches) == self.fail_at:
            raise KeyboardInterrupt
        self.batches.append(list(requests.values()))
        replies = self.engine.execute(requests)
        self.usages.append([reply.usage for reply in replies.values()])
        return replies

    def cancel(self, tickets):
        self.engine.cancel(tickets)

    def stats(self):
        return self.engine.stats()

    def close(self):
        self.engine.close()


def make_context(problem="p", *, task=None, expander=None, evaluator=None, budget=None, seed=0):
    return Context(
        task or Digits(),
        Problem(problem, None),
        expander or Propose(),
        evaluator or ValuePrompt(),
        budget=budget,
        seed=seed,
    )


def run(policy, *, engine=None, **context):
    """The outcome of one search."""
    engine = engine or MockEngine(scripted_reply)
    (outcome,) = Scheduler(engine).run([(policy, make_context(**context))])
    return outcome


def snapshot(graph):
    """All that a graph holds, comparable with =="""
    return [
        (
            node.id,
            node.text,
            node.state,
            [parent.id for parent in node.parents],
            [child.id for child in node.children],
            node.value,
            node.prior,
            node.logprob,
            node.visits,
            node.value_sum,
        )
        for node in graph
    ]


@pytest.fixture(name="Digits", scope="session")
def digits_class():
    return Digits


@pytest.fixture(name="RandomTree", scope="session")
def random_tree_class():
    return RandomTree


@pytest.fixture(name="make_context", scope="session")
def make_context_function():
    return make_context


@pytest.fixture(name="make_engine", scope="session")
def make_engine_function():
    return lambda: MockEngine(scripted_reply)


@pytest.fixture(name="recording", scope="session")
def recording_engine_class():
    """Wraps a fresh scripted engine, or the one given."""
    return lambda engine=None, fail_at=None: RecordingEngine(
        engine or MockEngine(scripted_reply), fail_at
    )


@pytest.fixture(name="run", scope="session")
def run_function():
    return run


@pytest.fixture(name="snapshot", scope="session")
def snapshot_function():
    return snapshot
