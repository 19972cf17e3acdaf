import pytest
from drawn_tree import Drawn

from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.context import Context
from treeshare.search.evaluators.prompted import Heuristic, ValuePrompt
from treeshare.search.expanders import Choose, Propose
from treeshare.search.policies.self_refine import SelfRefine
from treeshare.search.scheduler import Scheduler
from treeshare.tasks.arithmetic.game24 import Game24
from treeshare.tasks.task import HasRefinement


def replies(**texts):
    """An engine that gives each role its texts in turn."""
    queues = {role: list(queue) for role, queue in texts.items()}
    return MockEngine(lambda prompt, seed, k: queues[prompt.partition("\n")[0]].pop(0))


def prompts(engine):
    return ["".join(request.prefix_segments) for request in engine.requests]


def test_the_chain(run, recording):
    engine = recording(
        replies(cot=["1 1"], feedback=["too few", "not so", "now 0"], refine=["1 2 3", "2 0"])
    )
    outcome = run(SelfRefine(), engine=engine)
    assert prompts(engine) == [
        "cot\np",
        "feedback\np 1 1",
        "refine\np 1 1 : too few\n",
        "feedback\np 1 2 3",
        "refine\np 1 1 : too few\np 1 2 3 : not so\n",
        "feedback\np 2 0",
    ]
    first, second, third = outcome.graph.root.children
    assert outcome.ranked == [third, second, first]
    assert second.parents == [outcome.graph.root, first]
    assert third.parents == [outcome.graph.root, second]
    assert third.state == ("p", "2", "0") and third.depth == 1
    assert outcome.rounds == 6


@pytest.mark.parametrize(("iterations", "requests"), [(0, 1), (1, 3), (2, 5)])
def test_iterations_end_the_search(iterations, requests, run):
    outcome = run(SelfRefine(iterations), engine=replies(cot="3", feedback="12", refine="12"))
    assert outcome.requests == requests
    assert len(outcome.ranked) == iterations + 1


def test_what_cannot_be_read_leaves_the_solution(run, recording):
    engine = recording(replies(cot=["1 0"], feedback=["a", "b"], refine=["?", "2 0"]))
    outcome = run(SelfRefine(2), engine=engine)
    assert [node.text for node in outcome.ranked] == ["0", "0"]
    assert prompts(engine)[-2:] == ["feedback\np 1 0", "refine\np 1 0 : a\np 1 0 : b\n"]
    assert outcome.parse_failures == 1
    assert run(SelfRefine(), engine=replies(cot=["?"])).ranked == []


def test_an_unfinished_solution_comes_after_the_finished(run):
    outcome = run(SelfRefine(1), engine=replies(cot=["1 0"], feedback=["?"], refine=["2"]))
    assert [node.is_terminal for node in outcome.ranked] == [True, False]


def test_the_task_must_have_feedback(run):
    outcome = run(SelfRefine(), task=Drawn(), expander=Choose(), evaluator=Heuristic())
    assert "HasRefinement: task 'drawn' has no is_satisfied" in str(outcome.error)


def test_game24(recording):
    task = Game24(limit=1)
    (problem,) = task.problems()
    numbers = list(map(str, problem.data))
    assert isinstance(task, HasRefinement)
    texts = iter(
        [" + ".join(numbers), " wrong,\n it is too small", " * ".join(numbers), " Correct"]
    )
    engine = recording(MockEngine(lambda prompt, seed, k: next(texts)))
    ctx = Context(task, problem, Propose(), ValuePrompt())
    (outcome,) = Scheduler(engine).run([(SelfRefine(role="io"), ctx)])
    assert [node.state.answer for node in outcome.ranked] == [
        " * ".join(numbers),
        " + ".join(numbers),
    ]
    given, added = f"Numbers: {' '.join(numbers)}\n", f"Answer: {' + '.join(numbers)} = 24\n"
    assert [request.prefix_segments[1:] for request in engine.requests[1:3]] == [
        (given, added, "Feedback:"),
        (given, added, "Feedback: wrong, it is too small\n", "Answer:"),
    ]
