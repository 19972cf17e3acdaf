import math
from collections import Counter
from random import Random

import pytest
from drawn_tree import Drawn, drawing, search
from hypothesis import given
from hypothesis import strategies as st

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.evaluators.prompted import Heuristic
from treeshare.search.expanders import Sample
from treeshare.search.policies.particle import ParticleFilter, logit, multinomial, systematic


class Fixed(Random):
    """Draws u and nothing else."""

    def __init__(self, u):
        super().__init__()
        self.u = u

    def random(self):
        return self.u


def test_logit():
    assert logit(0.5) == 0.0
    assert logit(0.8) == pytest.approx(math.log(4))
    assert logit(2.0) == pytest.approx(math.log(1e7))  # kept off 1
    assert logit(-1.0) == pytest.approx(-math.log(1e7))


@pytest.mark.parametrize(
    ("u", "indices"),
    [
        # cumulated, times 4: 1.6, 2.0, 4.0
        (0.0, [0, 0, 2, 2]),  # 2.0 ends the second interval, so it lies in the third
        (0.5, [0, 0, 2, 2]),  # 0.5, 1.5, 2.5, 3.5
        (0.7, [0, 1, 2, 2]),  # 0.7, 1.7, 2.7, 3.7
    ],
)
def test_systematic(u, indices):
    assert systematic([0.4, 0.1, 0.5], 4, Fixed(u)) == indices


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=9), st.integers(0, 50), st.integers())
def test_systematic_counts_are_within_one(weights, n, seed):
    indices = systematic(weights, n, Random(seed))
    assert len(indices) == n and indices == sorted(indices)
    for i, weight in enumerate(weights):
        assert abs(indices.count(i) - n * weight / math.fsum(weights)) < 1 + 1e-6


def test_multinomial_follows_the_weights():
    counts = Counter(multinomial([0.2, 0.0, 0.8], 10_000, Random(0)))
    assert counts[1] == 0 and counts.total() == 10_000
    assert counts[0] == pytest.approx(2000, abs=150)


@pytest.mark.parametrize("resampling", ["multinomial", "systematic"])
@pytest.mark.parametrize(("temperature", "ranking"), [(1.0, "b a"), (1e6, "a b")])
def test_particles_follow_the_model_and_the_values(resampling, temperature, ranking, run):
    """Of 1000 particles 750 go to a, of odds 1, and 250 to b, of odds 9: weights 1/4 and 3/4."""
    outcome = search(
        run,
        ParticleFilter(1000, temperature, resampling=resampling, answers="majority"),
        Drawn("a 0.5 *\nb 0.9 *"),
        engine=MockEngine(score=lambda prompt, text: math.log({"a": 0.75, "b": 0.25}[text])),
    )
    assert [node.text for node in outcome.ranked] == ranking.split()


def test_whole_search(run):
    policy = ParticleFilter(6, 2.0, resampling="systematic")
    outcome = search(run, policy, Drawn())
    assert drawing(outcome.graph) == GOLDEN.strip()
    assert [node.text for node in outcome.ranked] == ["ca", "baa", "aba"]


GOLDEN = """
a #1 0.6
    aa #4 0.2
    ab #5 0.5
        aba #10 0.4 *
        abb #11 - *
b #2 0.8
    ba #6 0.4
        baa #12 0.5 *
    bb #7 0.9
c #3 0.4
    ca #8 0.7 *
    cb #9 -
"""


@pytest.mark.parametrize("resample_finished", [True, False])
@pytest.mark.parametrize("problem", [f"p{i}" for i in range(6)])
def test_the_number_of_particles_is_kept(problem, resample_finished, run, recording):
    policy = ParticleFilter(6, resample_finished=resample_finished, answers="best")
    engine = recording(
        MockEngine(lambda prompt, seed, k: str(Random(f"{prompt}{seed}{k}").randrange(4)))
    )
    outcome = run(policy, problem=problem, engine=engine, expander=Sample(), evaluator=Heuristic())
    asked = [sum(request.n for request in batch) for batch in engine.batches]
    assert asked[0] == 6 and all(n <= 6 for n in asked)
    if not resample_finished:
        assert asked == sorted(asked, reverse=True)  # the finished are finished for good
        finished = [node for node in outcome.graph if node.is_terminal]
        assert {*outcome.ranked} == {*finished}


def test_a_lost_particle_is_made_up_for(run):
    """bb is a dead end: its particles are dropped and the others resampled to the full number."""
    outcome = search(run, ParticleFilter(8, answers="majority"), Drawn())
    assert outcome.ranked[0].is_terminal


def test_nothing_readable_gives_no_answer(run):
    outcome = run(ParticleFilter(), engine=MockEngine(["?"]), expander=Sample())
    assert outcome.ranked == [outcome.graph.root]
    assert outcome.requests == 1
