"""A reward model beside an engine."""

from treeshare.llm_backend.api import Failure, Generate, Reward, RewardReply, Score, Usage
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.llm_backend.engines.replay import ReplayEngine
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.reward.engine import RewardEngine

REQUESTS = {
    3: Reward("q", "a"),
    1: Score(("p",), ("x",)),
    2: Reward("q", "ab"),
    5: Generate(("p",)),
}


class Lengths:
    """Scores an answer by its length; keeps the batches."""

    def __init__(self):
        self.batches = []

    def reward(self, requests):
        self.batches.append(list(requests))
        return [RewardReply(len(request.answer) / 10, Usage()) for request in requests]


class OneByOne:
    """Answers a single request a call, as an engine may."""

    def __init__(self):
        self.engine = MockEngine()
        self.waiting = {}

    def execute(self, requests):
        self.waiting |= requests
        ticket = next(iter(self.waiting), None)
        return {} if ticket is None else self.engine.execute({ticket: self.waiting.pop(ticket)})


def test_a_round_is_classified_together_and_the_rest_passed_on():
    reward_model, engine = Lengths(), MockEngine()
    replies = RewardEngine(engine, reward_model).execute(REQUESTS)
    assert reward_model.batches == [[REQUESTS[3], REQUESTS[2]]]
    assert (replies[3].score, replies[2].score) == (0.1, 0.2)
    others = {ticket: REQUESTS[ticket] for ticket in (1, 5)}
    assert {ticket: replies[ticket] for ticket in others} == MockEngine().execute(others)
    assert engine.stats().sequences == 2


def test_what_the_engine_still_works_on_is_answered_later():
    engine = RewardEngine(OneByOne(), Lengths())
    answered = [set(engine.execute(REQUESTS)), set(engine.execute({})), set(engine.execute({}))]
    assert answered == [{1, 2, 3}, {5}, set()]


def test_scores_do_not_wait_for_the_engine():
    engine = OneByOne()
    engine.waiting = {9: Generate(("p",))}
    assert set(RewardEngine(engine, Lengths()).execute({3: REQUESTS[3]})) == {3}
    assert set(engine.waiting) == {9}


def test_scores_are_recorded_and_replayed(tmp_path):
    recorder = ReplayEngine(tmp_path / "log", RewardEngine(MockEngine(), Lengths()))
    replies = recorder.execute(REQUESTS)
    recorder.close()
    assert ReplayEngine(tmp_path / "log").execute(REQUESTS) == replies


def test_the_tree_engine_alone_says_what_is_missing(llama):
    replies = TreeEngine(llama).execute(REQUESTS)
    assert isinstance(replies[3], Failure)
    assert "add reward_model=hf reward_model.name=" in str(replies[3].error)


def test_an_answer_that_cannot_be_read_fails_alone():
    class Picky(Lengths):
        def reward(self, requests):
            if any("!" in request.answer for request in requests):
                raise TypeError("not this one")
            return super().reward(requests)

    requests = {i: Reward("q", answer) for i, answer in enumerate(["a", "b!", "cd", "!"])}
    replies = RewardEngine(MockEngine(), Picky()).execute(requests)
    assert [replies[i].score for i in (0, 2)] == [0.1, 0.2]
    assert [str(replies[i].error) for i in (1, 3)] == ["not this one"] * 2


def test_a_score_that_is_nan_is_a_failure():
    class Broken(Lengths):
        def reward(self, requests):
            return [RewardReply(float("nan"), Usage()) for _ in requests]

    (reply,) = RewardEngine(MockEngine(), Broken()).execute({0: Reward("q", "a")}).values()
    assert isinstance(reply, Failure) and "score is NaN" in str(reply.error)


def test_cancelled_requests_are_the_engines(llama):
    tree = TreeEngine(llama)
    engine = RewardEngine(tree, Lengths())
    assert engine.execute({0: Generate(("a prompt",), 2), 1: Score(("a",), ("b",))}).keys() == {1}
    engine.cancel([0, 1])
    assert engine.execute({}) == {}
    tree.check_integrity()
