import pytest
from drawn_tree import Drawn, drawing, search

from treeshare.llm_backend.api import Generate
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.context import Context
from treeshare.search.evaluators.prompted import Heuristic, ValuePrompt
from treeshare.search.expanders import Choose, Propose
from treeshare.search.graph import SearchGraph
from treeshare.search.policies.simulation.lats import LATS, first_guess
from treeshare.search.scheduler import Scheduler
from treeshare.tasks.arithmetic.game24 import Game24


class Teachable(Drawn):
    sampling = {"reflect": {"max_tokens": 8}}  # noqa: RUF012

    def with_reflections(self, state, reflections):
        return state


def test_first_guess():
    graph = SearchGraph(0)
    step = graph.add(graph.root, "", 1, is_terminal=False)
    step.prior, step.value = 0.25, 0.9
    assert first_guess(step, 0.8) == pytest.approx(0.8 * 0.9 + 0.2 * 0.25)
    assert first_guess(step, 1.0) == 0.9


def test_whole_search(run, recording):
    engine = recording(MockEngine(["try b"], score=lambda prompt, text: -1.0))
    outcome = search(run, LATS(5, threshold=0.7), Teachable(), engine=engine)
    # b, whose guess is (0.8 + 1/3) / 2, then bb, a dead end: 0. Twice a, ab, aba: 0.4, which
    # leads c's guess of (0.4 + 1/3) / 2 at first. Then c, ca: 0.7, and again.
    tree = """
a #1 0.6 n=2 w=0.80
    aa #6 0.2
    ab #7 0.5 n=2 w=0.80
        aba #8 0.4 n=2 w=0.80 *
        abb #9 0.3 *
b #2 0.8 n=1 w=0.00
    ba #4 0.4
    bb #5 0.9 n=1 w=0.00
c #3 0.4 n=2 w=1.40
    ca #10 0.7 n=2 w=1.40 *
    cb #11 0.3
"""
    assert drawing(outcome.graph) == tree.strip()
    assert [node.text for node in outcome.ranked] == ["ca", "aba", "abb"]
    reflections = [r.prefix_segments for r in engine.requests if isinstance(r, Generate)]
    assert reflections == [("reflect\n", "aba"), ("reflect\n", "ca")]


def test_a_success_ends_the_search_and_is_not_reflected_on(run, recording):
    engine = recording(MockEngine(["try b"], score=lambda prompt, text: -1.0))
    outcome = search(run, LATS(50, threshold=0.6), Teachable(), engine=engine)
    assert outcome.ranked[0].text == "ca"
    assert outcome.graph.root.visits == 4
    assert sum(isinstance(request, Generate) for request in engine.requests) == 1  # aba


def replies(prompt, seed, k):
    role = prompt.split("\n")[0]
    return {"propose": "1 2 3", "value": "impossible", "reflect": f"not\n {seed % 97} "}[role]


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_reflections_are_in_the_prompts_of_later_expansions(limit, run, Digits, recording):
    engine = recording(MockEngine(replies))
    task = Digits(length=2)
    outcome = run(LATS(8, num_samples=1, reflections=limit), task=task, engine=engine)
    assert outcome.error is None
    lessons, shown = [], []
    for request in engine.requests:
        role, *notes, _ = request.prefix_segments
        if role == "reflect\n":
            lessons.append(f"not {request.seed % 97}\n")
        elif role == "propose\n":
            shown.append(notes)
            assert notes == lessons
    assert len(lessons) == limit
    assert len(shown) == 4  # the root and its children
    assert shown[0] == shown[1] == []
    for node in outcome.graph:  # those below have inherited them
        if node.parent and node.parent.parent:
            assert getattr(node.state[0], "reflections", ()) == getattr(
                node.parent.state[0], "reflections", ()
            )


def test_without_reflections_it_asks_what_tree_search_asks(run, Digits, recording):
    with_none, engine = recording(MockEngine(replies)), recording(MockEngine(replies))
    run(LATS(8, reflections=0), task=Digits(length=2), engine=with_none)
    run(LATS(8, reflections=3), task=Digits(length=2), engine=engine)
    roles = [{r.prefix_segments[0] for r in e.requests} for e in (with_none, engine)]
    assert roles == [{"propose\n", "value\n"}, {"propose\n", "value\n", "reflect\n"}]


def test_failures_of_one_batch_are_reflected_on_together(run):
    outcome = search(run, LATS(3, batch_size=3, threshold=1.0), Teachable())
    # a, b, c; then aba and ca end, bb is a dead end; then two reflections in one round
    assert (outcome.requests, outcome.rounds) == (5 + 2, 4)


def test_an_empty_reflection_is_not_shown_nor_asked_for_again(run, Digits, recording):
    def mute(prompt, seed, k):
        return " " if prompt.startswith("reflect") else replies(prompt, seed, k)

    engine = recording(MockEngine(mute))
    run(LATS(8), task=Digits(length=1), engine=engine)
    reflected = [r for r in engine.requests if r.prefix_segments[0] == "reflect\n"]
    assert len(reflected) == len({r.prefix_segments for r in reflected}) == 3


def test_a_task_without_reflections_is_refused(run):
    outcome = run(LATS(), task=Drawn(), expander=Choose(), evaluator=Heuristic())
    assert isinstance(outcome.error, TypeError)
    assert "LATS needs a task that is HasReflections: task 'drawn' has no" in str(outcome.error)


def test_game_of_24_learns_from_a_wrong_answer(recording):
    def reply(prompt, seed, k):
        if prompt.endswith("Lesson:"):
            return " do not add all"
        if prompt.endswith("Verdict:"):
            return " impossible"
        numbers = prompt.rpartition("Numbers: ")[2].partition("\n")[0].split()
        return f"{numbers[0]} + {numbers[1]} = {int(numbers[0]) + int(numbers[1])}" + (
            f"\n{numbers[0]} * {numbers[1]} = {int(numbers[0]) * int(numbers[1])}"
        )

    engine = recording(MockEngine(reply))
    task = Game24(limit=1)
    (problem,) = task.problems()
    ctx = Context(task, problem, Propose(), ValuePrompt(1))
    (outcome,) = Scheduler(engine).run([(LATS(4, num_samples=1), ctx)])
    assert outcome.error is None
    texts = ["".join(r.prefix_segments) for r in engine.requests]
    assert sum(text.endswith("Lesson:") for text in texts) == 3
    lesson = "Lesson: do not add all\n"
    asked = [text for text in texts if text.endswith("Next steps:\n")]
    assert [lesson in text for text in asked] == sorted(lesson in text for text in asked)
    assert lesson in asked[-1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LATS(0), "num_simulations=0 must be at least 1"),
        (lambda: LATS(num_samples=0), "num_samples=0 must be at least 1"),
        (lambda: LATS(value_weight=1.5), "value_weight=1.5 must be at most 1"),
        (lambda: LATS(value_weight=-1), "value_weight=-1 must be at least 0"),
        (lambda: LATS(reflections=-1), "reflections=-1 must be at least 0"),
    ],
)
def test_parameters_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()
