"""ToT-BFS driven by the Game-of-24 log that its authors published (GPT-4, puzzles 901 to 1000).

The log holds, and the engine serves in place of GPT-4, the lines proposed for each state and each
state's value, which is the sum of three verdicts (0.001, 1 or 20 each; the log does not hold their
texts). Our code (`ToTBFS`, `Propose`, `ValuePrompt`, `Scheduler`) computes the rest: the states,
which of them are equal, the choice of 5 at every step, the order of the answers, and the batches.
`Game24` reads the answers and `Game24Verifier` judges them; the log's own scores are only compared.

As in the authors' program, the first of equal states in a step has the value and the others have 0.
In one puzzle two of five states are equal, and the log does not say where the proposals for the
first one end. We cut before the first line that is repeated.
"""

import json
from contextlib import closing

import pytest
from places import DATA

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.llm_backend.engines.replay import ReplayEngine
from treeshare.search.context import Context
from treeshare.search.evaluators.prompted import ValuePrompt
from treeshare.search.expanders import Propose
from treeshare.search.policies.tot import ToTBFS
from treeshare.search.scheduler import Scheduler
from treeshare.tasks.arithmetic.game24 import Game24, Game24Verifier
from treeshare.tasks.task import Problem, Step

LOG = DATA / "tot/game24_gpt4_bfs_log.json"

pytestmark = pytest.mark.skipif(not LOG.exists(), reason=f"needs ToT's published log at {LOG}")


class LoggedGame24:
    """A state is (puzzle, the lines so far as GPT-4 wrote them, which of a reply's equal lines)."""

    name = "logged_game24"
    sampling = {"propose": {}, "value": {}}  # noqa: RUF012
    values = {"sure": 20, "likely": 1, "impossible": 0.001}  # noqa: RUF012

    def root(self, problem):
        return problem.data, "", 0

    def prompt(self, role, state):
        puzzle, text, double = state
        return f"{role} ", f"{puzzle} ", f"{double if role == 'propose' else 0}\n", text

    def parse(self, role, state, text):
        lines = text.split("\n")
        return [
            Step(line, (state[0], f"{state[1]}{line}\n", lines[:i].count(line)))
            for i, line in enumerate(lines)
        ]

    def parse_value(self, state, text):
        return float(text)

    def is_terminal(self, state):
        return state[1].count("\n") == 4


class FirstOfEqual:
    """The task's value for the first of equal states, 0 for the others."""

    async def evaluate(self, ctx, nodes):
        first = {}
        for node in nodes:
            first.setdefault(node.state[:2], node)
        values = await ValuePrompt(num_samples=1).evaluate(ctx, list(first.values()))
        value_of = dict(zip(first.values(), values, strict=True))
        return [value_of.get(node, 0.0) for node in nodes]


def recorded_replies(log):
    """What GPT-4 answered to each prompt of `LoggedGame24`."""
    replies = {}
    for number, puzzle in enumerate(log):
        for step in puzzle["steps"]:
            for i, text in enumerate(step["ys"]):
                double = step["ys"][:i].count(text)
                lines = [y[len(text) : -1] for y in step["new_ys"] if y.startswith(text)]
                if step["ys"].count(text) == 2:
                    cut = next(i for i, line in enumerate(lines) if line in lines[:i])
                    lines = lines[cut:] if double else lines[:cut]
                replies[f"propose {number} {double}\n{text}"] = "\n".join(lines)
            for text, value in zip(step["new_ys"], step["values"], strict=True):
                replies.setdefault(f"value {number} 0\n{text}", str(value))
    return replies


@pytest.fixture(scope="module")
def log():
    return json.loads(LOG.read_text())


def search(log, engine):
    scheduler = Scheduler(engine)
    policy = ToTBFS(breadth=5, num_samples=1, depth=4)
    searches = (
        (policy, Context(LoggedGame24(), Problem(str(i), i), Propose(), FirstOfEqual()))
        for i in range(len(log))
    )
    outcomes = sorted(scheduler.run(searches), key=lambda outcome: int(outcome.problem_id))
    assert [outcome.error for outcome in outcomes] == [None] * 100
    return outcomes, scheduler


@pytest.fixture(scope="module")
def replayed(log, recording, tmp_path_factory):
    """The outcome of each puzzle, in the log's order; the scheduler; the engine: `replay`, on a log
    of requests made of the published one."""
    path = tmp_path_factory.mktemp("gpt4") / "requests.jsonl"
    replies = recorded_replies(log)
    with closing(ReplayEngine(path, MockEngine(lambda prompt, seed, k: replies[prompt]))) as engine:
        search(log, engine)
    engine = recording(ReplayEngine(path))
    return *search(log, engine), engine


@pytest.fixture(scope="module")
def is_right(log, replayed):
    """Our verdicts on the answers of each puzzle, best first."""
    game, verifier = Game24(), Game24Verifier()

    def check(problem, text):
        last_line = text.rstrip("\n").rpartition("\n")[2]
        steps = game.parse("cot", game.root(problem), last_line)
        return isinstance(steps, list) and verifier.check(problem, game.answer(steps[0].state))

    verdicts = []
    for puzzle, outcome in zip(log, replayed[0], strict=True):
        numbers = tuple(map(int, puzzle["steps"][0]["x"].split()))
        problem = Problem(outcome.problem_id, numbers)
        verdicts.append([check(problem, node.state[1]) for node in outcome.ranked])
    return verdicts


def test_the_same_states_are_kept_at_every_step(log, replayed):
    outcomes, _, engine = replayed
    for number, (puzzle, outcome) in enumerate(zip(log, outcomes, strict=True)):
        kept = [
            request.prefix_segments[-1]
            for request in engine.requests
            if request.prefix_segments[:2] == ("propose ", f"{number} ")
        ]
        assert kept == [text for step in puzzle["steps"] for text in step["ys"]]
        assert [node.state[1] for node in outcome.ranked] == puzzle["ys"]


def test_the_same_states_are_valued(log, replayed):
    for puzzle, outcome in zip(log, replayed[0], strict=True):
        logged = [
            (text, value)
            for step in puzzle["steps"]
            for text, value in zip(step["new_ys"], step["values"], strict=True)
        ]
        nodes = sorted(list(outcome.graph)[1:], key=lambda node: node.depth)
        assert [(node.state[1], node.value) for node in nodes] == logged


def test_all_calls_merge_into_eight_rounds(replayed):
    _, scheduler, engine = replayed
    propose = [r for r in engine.requests if r.prefix_segments[0] == "propose "]
    assert scheduler.rounds == 8
    assert (len(propose), scheduler.requests) == (1600, 9997)
    sizes = [100, 946, 500, 3172, 500, 2045, 500, 2234]
    assert [len(batch) for batch in engine.batches] == sizes


def test_our_verifier_gives_the_published_scores(log, is_right):
    assert is_right == [[info["r"] == 1 for info in puzzle["infos"]] for puzzle in log]
    assert sum(any(verdicts) for verdicts in is_right) == 69
    assert sum(verdicts[0] for verdicts in is_right) == 62
    assert sum(sum(verdicts) / 5 for verdicts in is_right) == pytest.approx(23.8)
