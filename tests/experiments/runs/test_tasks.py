"""Properties of every task of the package, run from its configuration on the mock engine."""

import pickle

import oracle_model
import pytest
from hydra import compose, initialize_config_module
from places import PACKAGE
from task_options import task_options

from treeshare.experiments.run import run
from treeshare.experiments.runs.config import SetupError, prepare
from treeshare.tasks.task import HasMerge, HasMoves, ParseFailure, Task

NAMES = sorted(path.stem for path in PACKAGE.glob("conf/task/*.yaml"))
EVERY = pytest.mark.parametrize("name", NAMES)
STEPS = {  # a reply that every role which samples steps can parse
    "crosswords": "h1. scent\nv2. carol\nRows: scent canoe arson rouse fleets",
    **dict.fromkeys(("aime", "gsm8k", "math", "math500"), "so"),
    "reasoning_gym": "so",
    "set_intersection": "[1, 2, 3]",
    "sorting": "[1, 2, 3]",
}


def composed(name, *overrides):
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        return compose("config", ["engine=mock", *task_options(name), "task.limit=2", *overrides])


def right_answer(setup):
    """The right answer to the first problem, as a model would write it."""
    if setup.task.name in ("aime", "gsm8k", "math", "math500"):
        return "19.0 eggs"
    return oracle_model.right_answer(setup, setup.problems[0])


def result(cfg, tmp_path):
    cfg.output_dir = str(tmp_path)
    summary = run(cfg)
    assert not summary.failures and len(summary.rows) == 2
    return summary


@EVERY
def test_a_right_answer_is_right_for_its_problem_alone_and_an_unreadable_one_is_counted(
    name, tmp_path
):
    cfg = composed(name, "search=io")
    cfg.engine.replies = [right_answer(prepare(cfg))]
    summary = result(cfg, tmp_path)
    assert [row.correct_top1 for row in summary.rows] == [True, False]
    assert summary.table().startswith(f"{name} ")
    assert all(grade == 1 for grade in summary.rows[0].grades.values())
    assert all(0.5 <= grade <= 1 for grade in summary.totals.grades.values())

    cfg.engine.replies = [" "]
    for row in result(cfg, tmp_path).rows:
        assert not row.correct_any and not row.oracle and row.parse_failures == 1


@EVERY
@pytest.mark.parametrize("evaluator", [None, "oracle"], ids=["its own", "oracle"])
def test_a_tree_is_searched(name, evaluator, tmp_path):
    """The tree grows by replies that are steps, or by the task's own moves."""
    more = [f"evaluator={evaluator}"] if evaluator else []
    cfg = composed(name, "search.depth=2", "search.breadth=2", *more)
    cfg.engine.replies = [STEPS.get(name, "sure")]
    summary = result(cfg, tmp_path)
    assert all(row.nodes > 1 for row in summary.rows)
    assert summary.rows[0].oracle == (evaluator == "oracle")


@EVERY
def test_the_task_serves_its_roles_and_holds_no_verifier(name):
    setup = prepare(composed(name))
    task, problem = setup.task, setup.problems[0]
    assert isinstance(task, Task) and len({problem.id for problem in setup.problems}) == 2
    root = task.root(problem)
    assert hash(root) == hash(task.root(problem)) and root == task.root(problem)
    assert not task.is_terminal(root) and task.answer(root) is None
    assert setup.verifier.promise(problem, root) == 1.0
    held = pickle.dumps((task, setup.problems, root))
    assert type(setup.verifier).__name__.encode() not in held
    for role in {"io", "cot", "step"} & set(task.sampling):
        segments = task.prompt(role, root)
        assert all(segments) and segments == task.prompt(role, root)
        assert isinstance(task.parse(role, root, ""), ParseFailure)
    assert isinstance(task, HasMoves) == (name not in STEPS)
    assert isinstance(task, HasMerge) == (name in ("sorting", "set_intersection"))


def test_prompts_and_shots_are_keys_of_the_configuration(tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("{examples}Q: {question}\n{steps}")
    prompts = [f"+task.prompts.step={file}", '+task.prompts.io="{question} It is"']
    setup = prepare(composed("math500", *prompts, "task.shots={step: 1, value: 0}"))
    root = setup.task.root(setup.problems[1])
    question = "What is $\\frac{3}{8} + \\frac{1}{8}$?"
    assert "".join(setup.task.prompt("io", root)) == f"{question} It is"
    (example, _) = "".join(setup.task.prompt("step", root)).split("Q: ")
    assert example.startswith("Question: A box") and example.endswith("Answer: 19\n\n")
    assert setup.task.prompt("value", root)[0].count("\n\n") == 1
    with pytest.raises(SetupError, match=r"^task: prompts.io: the text lacks \{question\}: "):
        prepare(composed("math", '+task.prompts.io="{}"'))
    with pytest.raises(SetupError, match=r"^task: shots=9 must be at most 3; by role, at most "):
        prepare(composed("math", "task.shots=9"))


@pytest.mark.parametrize("name", ["sorting", "set_intersection"])
def test_graph_of_thoughts_runs(name, tmp_path):
    size = ["task.size=4", "task.part_size=2", "task.limit=2"]
    summary = result(composed(name, "search=got", *size, "engine.replies=['[1, 2]']"), tmp_path)
    assert [row.parse_failures for row in summary.rows] == [1, 1]  # the splits
