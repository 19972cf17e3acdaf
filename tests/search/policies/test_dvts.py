import pytest
from drawn_tree import Drawn, drawing, search

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.evaluators.prompted import Heuristic
from treeshare.search.expanders import Sample
from treeshare.search.policies.dvts import DVTS, deal


def test_first_steps_are_dealt_in_turn():
    assert deal([0, 1, 2, 3, 4], 2) == [[0, 2, 4], [1, 3]]
    assert deal([0], 3) == [[0], [], []]


def test_each_subtree_is_greedy(run):
    outcome = search(run, DVTS(subtrees=2), Drawn())  # a of a and c; b, which leads nowhere
    assert (
        drawing(outcome.graph)
        == """
a #1 0.6
    aa #4 0.2
    ab #5 0.5
        aba #8 0.4 *
        abb #9 0.3 *
b #2 0.8
    ba #6 0.4
    bb #7 0.9
c #3 0.4
""".strip()
    )
    assert [node.text for node in outcome.ranked] == ["aba", "abb"]
    assert outcome.rounds == 3


@pytest.mark.parametrize(
    ("policy", "grown", "ranking"),
    [
        (DVTS(subtrees=1), "b", "bb ba"),  # nothing finished: the deepest by score
        (DVTS(subtrees=9), "a ab b c", "ca aba abb"),
        (DVTS(subtrees=9, aggregate="sum"), "a ab b c", "aba abb ca"),  # 1.5, 1.4, 1.1
        (DVTS(subtrees=3, depth=2), "a b c", "ca"),
        (DVTS(subtrees=3, depth=1), "", "b a c"),
    ],
    ids=repr,
)
def test_subtrees_and_scores(policy, grown, ranking, run):
    outcome = search(run, policy, Drawn())
    assert sorted(node.text for node in outcome.graph if node.children) == ["", *grown.split()]
    assert [node.text for node in outcome.ranked] == ranking.split()


def test_all_subtrees_share_a_batch(run, recording):
    engine = recording(MockEngine(lambda prompt, seed, k: str(1 + (k + len(prompt)) % 3)))
    run(DVTS(subtrees=2, num_samples=3), engine=engine, expander=Sample(), evaluator=Heuristic())
    assert [[request.n for request in batch] for batch in engine.batches] == [[6], [3, 3], [3, 3]]
