import math

import pytest

from treeshare.llm_backend.api import Generate, Score
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.expanders import Choose, Propose, Sample, softmax


class Expand:
    def __init__(self, n):
        self.n = n

    async def search(self, ctx):
        return await ctx.expand(ctx.root, self.n)


def replies(*texts):
    """An engine whose k-th sample is the k-th text."""
    return MockEngine(lambda prompt, seed, k: texts[k])


def test_propose_merges_the_lists_in_order(run, recording):
    engine = recording(replies("3 1", "oops", "1 2 3"))
    outcome = run(Expand(3), engine=engine, expander=Propose())
    (request,) = engine.requests
    assert isinstance(request, Generate)
    assert (request.n, "".join(request.prefix_segments)) == (3, "propose\np")
    assert [node.text for node in outcome.ranked] == ["3", "1", "2"]
    assert [node.prior for node in outcome.ranked] == [2 / 5, 2 / 5, 1 / 5]
    assert [node.logprob for node in outcome.ranked] == [None] * 3
    assert outcome.parse_failures == 1


def test_sample_takes_one_step_of_each_sample(run, recording):
    engine = recording(replies("2 3", "1", "2", "?"))
    outcome = run(Expand(4), engine=engine, expander=Sample())
    assert "".join(engine.requests[0].prefix_segments) == "step\np"
    assert [node.text for node in outcome.ranked] == ["2", "1"]
    assert [node.prior for node in outcome.ranked] == [2 / 3, 1 / 3]
    assert [node.logprob for node in outcome.ranked] == [-2.0, -1.0]
    assert outcome.parse_failures == 1


@pytest.mark.parametrize("expander", [Propose(), Sample()])
def test_nothing_readable_gives_no_children(expander, run):
    outcome = run(Expand(2), engine=replies("?", "?"), expander=expander)
    assert outcome.ranked == []
    assert outcome.parse_failures == 2


LOGPROBS = {"0": -3.0, "1": -1.0, "2": -2.0, "3": -1.0}


def chosen(run, recording, width, n=1, **context):
    engine = recording(MockEngine(score=lambda prompt, text: LOGPROBS[text]))
    outcome = run(Expand(n), engine=engine, expander=Choose(width), **context)
    return outcome.ranked, engine.requests


def test_choose_ranks_all_moves_with_one_request(run, recording):
    nodes, requests = chosen(run, recording, None)
    assert requests == [Score(("choose\n", "p"), ("0", "1", "2", "3"))]
    assert [node.text for node in nodes] == ["1", "3", "2", "0"]
    assert [node.logprob for node in nodes] == [-1.0, -1.0, -2.0, -3.0]
    total = 2 * math.exp(-1) + math.exp(-2) + math.exp(-3)
    assert [node.prior for node in nodes] == pytest.approx(
        [math.exp(logprob) / total for logprob in (-1, -1, -2, -3)]
    )


def test_choose_keeps_priors_over_all_moves_and_ignores_n(run, recording):
    everything, _ = chosen(run, recording, None)
    nodes, requests = chosen(run, recording, 3, n=7)
    assert [node.text for node in nodes] == ["1", "3", "2"]
    assert [node.prior for node in nodes] == [node.prior for node in everything[:3]]
    assert len(requests) == 1


def test_choose_takes_the_likeliest_of_moves_to_one_state(run, recording, Digits):
    class Alike(Digits):
        def moves(self, state):
            return [
                type(m)(m.text, (*state, m.text.replace("3", "1"))) for m in super().moves(state)
            ]

    nodes, _ = chosen(run, recording, 3, task=Alike())
    assert [node.text for node in nodes] == ["1", "2", "0"]


def test_choose_without_moves_asks_nothing(run, recording, Digits):
    nodes, requests = chosen(run, recording, None, task=Digits(base=0))
    assert nodes == requests == []


def test_choose_refuses_a_width_below_one():
    with pytest.raises(ValueError, match="width=0 must be at least 1"):
        Choose(0)


def test_softmax_by_hand_and_far_out():
    assert softmax([0.0, math.log(3)]) == pytest.approx([0.25, 0.75])
    assert softmax([-1000.0, -1000.0]) == [0.5, 0.5]
    assert softmax([-math.inf, 0.0]) == [0.0, 1.0]
