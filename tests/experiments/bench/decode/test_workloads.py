"""What is decoded end to end: the recorded trees and logs, as an engine is asked for them."""

from collections import Counter

import numpy as np
import pytest
from places import DATA

from treeshare.experiments.bench.decode.game24_log import LoggedSearch
from treeshare.experiments.bench.decode.verification import verifications
from treeshare.experiments.bench.decode.workloads import (
    FewShot,
    Filler,
    MemoryPressure,
    Reasoning,
    reasoning,
)
from treeshare.experiments.bench.templates import Recording, recordings
from treeshare.llm_backend.api import Completion, EngineStats, Failure, GenerateReply, Usage
from treeshare.llm_backend.model.random_models import load_network

TEMPLATES, LOG = DATA / "deft_templates", DATA / "tot/game24_gpt4_bfs_log.json"
needs_templates = pytest.mark.skipif(
    not TEMPLATES.exists(), reason=f"needs DeFT's templates at {TEMPLATES}"
)
needs_log = pytest.mark.skipif(not LOG.exists(), reason=f"needs ToT's published log at {LOG}")


class Lockstep:
    """Draws one token a step for every sample; notes which requests decoded at each step."""

    def __init__(self):
        self.requests, self.left, self.steps = {}, {}, []

    def execute(self, requests):
        self.requests |= requests
        self.left |= {number: r.sampling.max_tokens for number, r in requests.items()}
        while self.left:
            self.steps.append(set(self.left))
            for number in self.left:
                self.left[number] -= 1
            if done := [number for number, left in self.left.items() if not left]:
                for number in done:
                    del self.left[number]
                return {number: self.reply(number) for number in done}
        return {}

    def reply(self, number):
        request = self.requests[number]
        count = request.sampling.max_tokens
        drawn = Completion(chr(0x100 + number) * count, count, 0.0, "length")
        return GenerateReply((drawn,) * request.n, Usage(completion_tokens=request.n * count))

    def stats(self):
        return EngineStats()

    def close(self):
        pass


@pytest.fixture(scope="module")
def filler():
    return Filler(load_network("tiny", "float32", "cpu"))


def test_filler_has_the_wanted_number_of_tokens_and_its_own_text(filler):
    model = load_network("tiny", "float32", "cpu")
    assert len(model.tokenizer.encode(filler.text("prompt", 1000))) == 1000
    assert filler.text(1, 50) == filler.text(1, 50) != filler.text(2, 50)
    assert filler.text(1, 50) != Filler(model, seed=1).text(1, 50)


def test_few_shot_is_one_request(filler):
    engine = Lockstep()
    FewShot(40, 3, 5).run(engine, filler)
    (request,) = engine.requests.values()
    assert (len("".join(request.prefix_segments)), request.n) == (40, 3)
    assert (request.sampling.max_tokens, request.sampling.temperature) == (5, 1.0)


def decoding(recording):
    """The nodes that decode at each iteration, as the recording tells."""
    last = recording.last_iterations()
    first = last - recording.length + 1
    nodes = np.arange(1, len(last))
    count = int(last.max())
    return [set(nodes[(first[1:] <= i) & (i <= last[1:])].tolist()) for i in range(1, count + 1)]


def test_a_tree_by_hand_branches_and_prunes(filler):
    tree = Recording(np.array([-1, 0, 0, 1, 1]), np.array([7, 2, 5, 1, 3]))
    engine = Lockstep()
    Reasoning("by hand", tree).run(engine, filler)
    assert engine.steps == [{1, 2}, {1, 2}, {2, 3, 4}, {2, 4}, {2, 4}]
    prompt, parents = engine.requests[3].prefix_segments
    assert len(prompt) == 7 and parents == "āā"
    assert engine.requests[4].prefix_segments == (prompt, parents)


@needs_templates
@pytest.mark.parametrize("name", ["sorting128ToT", "set128ToT"])
def test_every_node_decodes_in_the_recorded_iterations(name, filler):
    (work,) = reasoning(TEMPLATES, {name: [1]})
    engine = Lockstep()
    replies = work.run(engine, filler)
    recording = recordings(TEMPLATES, {name: [1]})[f"{name}[1]"]
    assert engine.steps == decoding(recording)
    assert len(engine.steps) == work.expected_steps
    total = sum(reply.usage.completion_tokens for reply in replies)
    assert total == recording.length[1:].sum()
    assert work.kv_tokens == recording.length.sum()


def test_a_failure_is_raised(filler):
    engine = Lockstep()
    engine.reply = lambda number: Failure(ValueError("too long"))
    tree = Reasoning("two", Recording(np.array([-1, 0]), np.array([2, 2])))
    for work in (FewShot(4, 1, 2), tree):
        with pytest.raises(ValueError, match="too long"):
            work.run(engine, filler)


def test_pressure_goes_on_from_first_samples(filler):
    engine = Lockstep()
    replies = MemoryPressure(prompts=2, prompt=10, branches=2, tokens=3).run(engine, filler)
    assert len(replies) == 4
    longer = engine.requests[1].prefix_segments  # of the second round, which reuses the numbers
    assert [len(part) for part in longer] == [5, 5, 3, 5] and longer[2] == "āāā"


@needs_log
def test_the_log_is_9997_requests_in_8_rounds():
    log = LoggedSearch.read(LOG)
    assert [len(asked) for asked in log.rounds] == [100, 946, 500, 3172, 500, 2045, 500, 2234]
    every = [ask for asked in log.rounds for ask in asked]
    assert Counter(ask.role for ask in every) == {"propose": 1600, "value": 8397}
    assert {ask.samples for ask in every if ask.role == "value"} == {3}
    # Of the 547,859 tokens that GPT-4 wrote and the 1,387,936 it was given.
    written = sum(ask.samples * ask.tokens for ask in every)
    assert written == pytest.approx(547_859, rel=0.02)
    assert {ask.state for ask in log.rounds[0]} >= {"4 5 6 10"}
    assert {ask.state for ask in log.rounds[1]} >= {"6 9 10", "1.5 5 10"}


@needs_log
def test_the_log_is_served_round_by_round(filler):
    log, engine = LoggedSearch.read(LOG, 1), Lockstep()
    replies = log.run(engine, filler)
    assert len(replies) == sum(map(len, log.rounds)) and log.num_puzzles == 1
    (shared, state) = engine.requests[0].prefix_segments
    assert len(shared) == log.shared and state


@pytest.mark.parametrize("text", ["[]", "[{}]", "no"])
def test_another_file_is_not_the_log(text, tmp_path):
    (tmp_path / "log.json").write_text(text)
    with pytest.raises(ValueError, match=r"log\.json is not the Game-of-24 log"):
        LoggedSearch.read(tmp_path / "log.json")


@needs_templates
def test_verification_accepts_what_was_recorded():
    (work,) = verifications(TEMPLATES, [32], prompt=100, tokens=20)
    steps = work.steps()
    assert [len(path) for path in steps] == [1, 4, 5, 3, 5, 4]  # Medusa's first record; 22 tokens
    for path in steps:
        assert path[0] == 1
        assert work.tree.parent[path[1:]].tolist() == path[:-1]
    assert work.at(130).length.tolist() == [130] + [1] * 32
