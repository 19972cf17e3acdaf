"""Whole searches of policies that ask for solutions in words, as drawings."""

import pytest
from drawn_tree import Drawn, drawing, search

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.policies.got import GoT
from treeshare.search.policies.one_shot import (
    IO,
    BestOfN,
    CoT,
    SelfConsistency,
    WeightedSelfConsistency,
)
from treeshare.search.policies.self_refine import SelfRefine
from treeshare.tasks.task import ParseFailure, Step


class Written(Drawn):
    """The names that a reply lists are steps; others cannot be read."""

    roles = ("io", "cot", "feedback", "refine", "split", "solve", "merge", "improve")
    sampling = {role: {} for role in roles}  # noqa: RUF012

    def prompt(self, role, state):
        if role == "refine":
            state = ", ".join(f"{tried} {feedback}" for tried, feedback in state)
        return (f"{role} ", state if isinstance(state, str) else " + ".join(state))

    def parse(self, role, state, text):
        names = [name for name in text.split() if name in self.values]
        return [Step(name, name) for name in names] or ParseFailure(role, text, "no name")

    def parse_merge(self, states, text):
        return self.parse("merge", states, text)[0]

    def is_satisfied(self, state, feedback):
        return feedback == "good"


PARTS = """
l 0.5
m 0.5
r 0.5
l1 0.2
l2 0.6
m1 0.7
m2 0.1
r1 0.4
lm1 0.3
lm2 0.5
lm3 0.8
lm4 0.4
lmr1 0.6 *
lmr2 0.9 *
"""

SAMPLES = {"cot ": ["aba", "ca", "?", "aaa", "aba", "ab", "ca", "aba"], "io ": ["b"]}

WRITTEN = {  # policy, task, the model's replies, graph, ranking
    "io": (IO(), Written(), SAMPLES, "b #1 -", "b"),
    "cot": (CoT(), Written(), SAMPLES, "aba #1 - *", "aba"),
    "self_consistency": (
        SelfConsistency(8),
        Written(),
        SAMPLES,
        """
aba #1 - *
ca #2 - *
aaa #3 - *
aba #4 - *
ab #5 -
ca #6 - *
aba #7 - *
""",
        "aba ca aaa",
    ),
    "best_of_n": (
        BestOfN(4),
        Written(),
        SAMPLES,
        """
aba #1 0.4 *
ca #2 0.7 *
aaa #3 0.9 *
""",
        "aaa ca aba",
    ),
    "weighted_self_consistency": (  # aba is most frequent, aaa is best, ca has the most in sum
        WeightedSelfConsistency(8),
        Written(),
        SAMPLES,
        """
aba #1 0.4 *
ca #2 0.7 *
aaa #3 0.9 *
aba #4 0.4 *
ab #5 -
ca #6 0.7 *
aba #7 0.4 *
""",
        "ca aba aaa",
    ),
    "self_refine": (
        SelfRefine(),
        Written(),
        {
            "cot ": ["abb"],
            "feedback abb": ["low"],
            "refine abb low": ["?"],
            "refine abb low, abb low": ["aba"],
            "feedback aba": ["more"],
            "refine abb low, abb low, aba more": ["ca"],
            "feedback ca": ["good"],
        },
        """
abb #1 - *
aba #2 - * +#1
ca #3 - * +#2
""",
        "ca aba abb",
    ),
    "got": (
        GoT(2, 2, 2),
        Written(PARTS),
        {
            "split ": ["l m r"],
            "solve l": ["l1", "l2"],
            "solve m": ["m1", "m2"],
            "solve r": ["r1", "?"],
            "merge l2 + m1": ["lm1", "lm2"],
            "improve lm2": ["lm3", "lm4"],
            "merge lm3 + r1": ["lmr1", "lmr2"],
        },
        """
l #1 -
    l1 #4 0.2
    l2 #5 0.6
        lm1 #9 0.3 +#6
        lm2 #10 0.5 +#6
            lm3 #11 0.8
                lmr1 #13 0.6 * +#8
                lmr2 #14 0.9 * +#8
            lm4 #12 0.4
m #2 -
    m1 #6 0.7
    m2 #7 0.1
r #3 -
    r1 #8 0.4
""",
        "lmr2 lmr1",
    ),
}


@pytest.mark.parametrize("name", WRITTEN)
def test_whole_graph(name, run):
    policy, task, replies, graph, ranking = WRITTEN[name]
    engine = MockEngine(lambda prompt, seed, k: replies[prompt][k])
    outcome = search(run, policy, task, engine=engine)
    assert drawing(outcome.graph) == graph.strip()
    assert [node.text for node in outcome.ranked] == ranking.split()
