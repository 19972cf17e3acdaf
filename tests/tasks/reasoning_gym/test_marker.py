"""Replies to data sets of reasoning-gym are data: none is run, and marks come in time.

`tests/support/hostile_answers.py` checks every data set; these tests check a few.
"""

import random
import re
from pathlib import Path

import pytest
from hostile_answers import hostile_answers, tried

from treeshare.tasks.reasoning_gym.task import ReasoningGym, ReasoningGymVerifier
from treeshare.tasks.task import Problem

pytest.importorskip("reasoning_gym", reason="needs the extra `reasoning-gym`")

from treeshare.tasks.reasoning_gym.marker import _EVALUATED, EvaluatedText, Marker

SIZE = 5_000


@pytest.mark.parametrize("name", ["countdown", "spiral_matrix", "boxnet"])
def test_hostile_answers_are_marked_and_nothing_runs(name, tmp_path):
    """The script checks the slow data sets."""
    canary = tmp_path / "canary"
    answers = [a for a in hostile_answers(canary) if "sin(sin" not in a and "x**x**x" not in a]
    outcome = tried(name, answers, canary, own=2)
    assert outcome.answers >= 60
    assert not outcome.executed and not outcome.wrong_marks
    assert outcome.highest_mark <= 0.05
    assert set(outcome.failures) <= {"raised"} and ("raised" in outcome.failures) == (
        name == "boxnet"
    )


@pytest.fixture(scope="module")
def markers():
    return {name: Marker(name, {}, 1, SIZE) for name in _EVALUATED}


@pytest.mark.parametrize("name", sorted(_EVALUATED))
def test_scorers_that_evaluate_see_data_alone(markers, name):
    code = re.compile(r"canary|__|exit|for |\*\*9\*\*|\* 10|factorial|!|integrate")
    for answer in filter(code.search, hostile_answers(Path("canary"))):
        assert not markers[name].is_harmless(0, answer), answer
        assert markers[name].mark(0, answer) == 0.0
    for index in range(5):
        assert markers[name].mark(index, markers[name].entry(index)["answer"]) == 1.0


@pytest.mark.parametrize(
    ("name", "answers", "mark"),
    [
        ("binary_matrix", lambda entry: str([r.split() for r in entry["answer"].split("\n")]), 0.1),
        ("n_queens", lambda entry: str([r.split() for r in entry["answer"].split("\n")]), 0.5),
        ("spiral_matrix", lambda entry: str(entry["answer"].split()), 0.1),
        ("string_insertion", lambda entry: str(list(entry["answer"])), 0.1),
        ("countdown", lambda entry: f" ({entry['answer']}) ", 1.0),
        ("puzzle24", lambda entry: f"({entry['answer']})", 1.0),
        ("polynomial_multiplication", lambda entry: f"{entry['answer']} + 0*7**2", 1.0),
        ("simple_integration", lambda entry: f"3*C - 7 + ({entry['answer']})", 1.0),
        ("intermediate_integration", lambda entry: f"2 - ({entry['answer']})*(-1)", 1.0),
    ],
)
def test_other_right_answers_keep_their_marks(markers, name, answers, mark):
    entry = markers[name].entry(0)
    assert markers[name].mark(0, answers(entry)) == mark


def test_no_other_part_of_the_package_evaluates_text():
    """If a new version does, `_EVALUATED` must be checked again."""
    import reasoning_gym

    root = Path(reasoning_gym.__file__).parent
    call = re.compile(
        r"(?<![\w.])(?:eval|exec|compile|__import__|literal_eval)\(|(?:sympy|sp|S)\.parse_expr\("
        r"|(?<!def )(?<![\w.])parse_expr\(|sympify\(|lambdify\(|parse_latex\(|pickle|subprocess"
    )
    found = {path.stem for path in root.rglob("*.py") if call.search(path.read_text())}
    # these evaluate texts of their own, or have a parser of that name
    others = {"basic_arithmetic", "bitwise_arithmetic", "codeio", "number_sorting"}
    others |= {"generators_00_49", "generators_50_99", "propositional_logic", "Compiler"}
    assert found - others == set(_EVALUATED)


def test_a_scorer_that_evaluates_unasked_gives_no_marks():
    marker = Marker("coin_flip", {}, 1, SIZE)

    class Evaluating:
        def score_answer(self, answer, entry):
            try:
                return float(eval(answer))
            except Exception:
                return 1.0

        def __getitem__(self, index):
            return {"question": "q", "answer": "a", "metadata": {}}

    marker.dataset = Evaluating()
    with pytest.raises(EvaluatedText, match="the scorer of coin_flip evaluates text"):
        marker.mark(0, "1 / 3")
    assert eval("1") == 1  # nothing is refused between two marks


def test_what_raises_or_takes_too_long_gets_no_mark_and_is_counted():
    task = ReasoningGym("coin_flip", limit=1)
    verifier = ReasoningGymVerifier("coin_flip", limit=1, seconds=2)
    (problem,) = task.problems()
    assert verifier.scoring_failures == {}
    for answer in ("1e999999999", "1e400"):
        assert not verifier.check(problem, answer)
    for answer in ("1e999999999", "1e400"):  # not marked twice
        (step,) = task.parse("io", task.root(problem), answer)
        assert verifier.grades(problem, step.state) == {"score": 0.0}
    assert verifier.scoring_failures == {"timed_out": 1, "raised": 1}
    assert not verifier.check(problem, "x" * 10**6)
    own = Marker("coin_flip", {}, 0, SIZE).entry(0)["answer"]
    assert verifier.check(problem, own)  # by the next process
    assert not verifier.check(problem, "7" * 99)
    with pytest.raises(ValueError, match="coin_flip/0: the data set makes another question"):
        verifier.check(Problem(problem.id, "What is 1 + 1?"), "2")


@pytest.mark.parametrize("answer", ["nan", "nan+nanj", "NaN - NaNi"])
def test_nan_is_not_right(answer):
    marker = Marker("complex_arithmetic", {}, 1, SIZE)
    assert marker.dataset.score_answer("nan", marker.entry(0)) == 1.0  # what the scorer says
    assert marker.mark(0, answer) == 0.0


def test_the_first_questions_are_the_same_for_every_limit():
    """`acre` draws its kinds of questions by shares of the data set's size."""
    three = [problem.data for problem in ReasoningGym("acre", limit=3, seed=1).problems()]
    assert three == Marker("acre", {}, 1, SIZE).questions(5)[:3]


@pytest.mark.parametrize("name", ["list_functions", "pool_matrix"])
def test_questions_do_not_depend_on_the_random_numbers_of_the_process(name):
    first = Marker(name, {}, 0, SIZE).questions(40)
    random.seed(7)
    second = Marker(name, {}, 0, SIZE)
    assert [second.question(i) for i in reversed(range(40))] == first[::-1]
