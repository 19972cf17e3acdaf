"""Every bad input gives one line that names it, and leaves nothing on disk."""

import subprocess
import sys

import pytest
from places import PARTS

from treeshare.experiments.run import main
from treeshare.experiments.runs.config import SetupError

MOCK = ["engine=mock", "task.limit=1"]
BAD = {
    "unknown key": (
        ["search.bredth=3"],
        "unknown key 'search.bredth'; known there: _target_, breadth, num_samples, depth",
    ),
    "key of a default": (
        ["-m", *MOCK, "search=mcts_uct,mcts_puct", "search.num_simulations=3"],
        "known there: _target_, breadth, num_samples, depth (in the default option; for those of "
        "search=mcts_uct,mcts_puct write ++search.num_simulations=...)",
    ),
    "unknown option": (["search=foo"], "there is no search/foo; there are ab_mcts, astar, beam"),
    "unknown experiment": (["experiment=foo"], "there is no experiment/foo; there are demo"),
    "no option": (["search=null"], "Config group override must be a string"),
    "grammar": (["search.breadth=[1"], "[1"),
    "parameter's name": ([*MOCK, "+search.bredth=3"], "search: ToTBFS.__init__() got"),
    "parameter's bound": ([*MOCK, "search.breadth=0"], "search: breadth=0 must be at least 1"),
    "no whole number": (
        [*MOCK, "search.breadth=2.5"],
        "search: breadth=2.5 must be a whole number",
    ),
    "no number": ([*MOCK, "search.breadth=abc"], "search: breadth='abc' must be a whole number"),
    "null": ([*MOCK, "search.breadth=null"], "search: breadth=None must be a whole number"),
    "infinite": ([*MOCK, "search=mcts", "search.c=1e400"], "search: c=inf must be a finite number"),
    "task's number": ([*MOCK, "task=sorting", "task.seed=abc"], "task: seed='abc' must be a whole"),
    "budget": ([*MOCK, "budget.tokens=-1"], "budget.tokens=-1 must be at least 0"),
    "seed": ([*MOCK, "seed=abc"], "seed: Value 'abc'"),
    "flag": ([*MOCK, "record=perhaps"], "record: Value 'perhaps'"),
    "max_live": ([*MOCK, "max_live=0"], "max_live=0 must be at least 1"),
    "mandatory value": (["model=hf"], "model.name: Missing mandatory value"),
    "module": ([*MOCK, "search._target_=nope.Policy"], "search: Error loading 'nope.Policy'"),
    "class": (
        [*MOCK, "search._target_=treeshare.search.policies.tot.Nope"],
        "search: Error loading 'treeshare.search.policies.tot.Nope'",
    ),
    "no verifier": ([*MOCK, "~task.verifier"], "task.verifier is None"),
    "no task": (["engine=mock", "~task"], "task is None; it needs a _target_"),
    "no engine": (["~engine"], "engine is None; it needs a _target_"),
    "no problems": (["engine=mock", "task.limit=0"], "task: limit=0"),
    "task file": (["engine=mock", "task.path=bad.csv"], "task: bad.csv:3: '1 1 x 8'"),
    "no task file": (["engine=mock", "task.path=no.csv"], "'no.csv'"),
    "no replay log": (["engine=replay", "engine.log=no.jsonl"], "engine: [Errno 2]"),
    "logger's mode": ([*MOCK, "logger=wandb", "logger.mode=on"], "logger: mode=on must be"),
    "output_dir": ([*MOCK, "output_dir=bad.csv"], "Not a directory: 'bad.csv"),
    "model": (["model.name=no/such/model"], "model.name='no/such/model'"),
    "reward_model": (
        [*MOCK, "reward_model=hf", "reward_model.name=no/such/model"],
        "reward_model.name='no/such/model' is no directory",
    ),
    "no reward_model's name": (
        [*MOCK, "reward_model=hf"],
        "reward_model.name: Missing mandatory value",
    ),
    "no reward_model": (
        ["evaluator=outcome_reward"],
        "engine: OutcomeReward asks for scores of a reward model, and this engine has no "
        "capability `rewards`: add reward_model=hf reward_model.name=...",
    ),
    "no reward_model for steps": (
        ["evaluator=process_reward", "evaluator.by=reward_model"],
        "engine: ProcessReward asks for scores of a reward model",
    ),
    "no reward_model for a part": (
        [
            "evaluator=combined",
            "evaluator.evaluators.value._target_=treeshare.search.OutcomeReward",
        ],
        "engine: OutcomeReward asks for scores of a reward model",
    ),
    "no scores": (
        [*MOCK, "engine._target_=troubled_engines.Scoreless"],
        "engine: Choose asks for scores of given texts, and this engine has no capability `scores`",
    ),
    "no capabilities": (
        [*MOCK, "engine._target_=troubled_engines.Undeclared"],
        "engine: 'Undeclared' object has no attribute 'capabilities'",
    ),
    "replies": ([*MOCK, "engine.replies=[]"], "engine: replies must not be empty"),
    "ends in a bug": (
        [*MOCK, "engine._target_=troubled_engines.Unmakable"],
        "parts/troubled_engines.py:59: RuntimeError: it's a bug",
    ),
}


@pytest.fixture
def bad_csv(tmp_path):
    (tmp_path / "bad.csv").write_text("Rank,Puzzles\n1,1 1 4 6\n2,1 1 x 8\n")


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD.keys())
def test_one_line_and_nothing_on_disk(arguments, said, treeshare, bad_csv, tmp_path):
    done = treeshare(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("treeshare: ") and done.err.count("\n") == 1
    assert said in done.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]


PARTS_THAT_RAISE = {
    "search": ["search._target_=raising_parts.Policy"],
    "expander": ["expander._target_=raising_parts.Expander"],
    "evaluator": ["evaluator._target_=raising_parts.Evaluator"],
    "engine": ["engine._target_=raising_parts.Engine"],
    "task.verifier": ["task.verifier._target_=raising_parts.Verifier"],
    "logger": ["logger._target_=raising_parts.Logger"],
    "logger when it starts": ["logger._target_=raising_parts.Starting"],
    "task": ["task._target_=raising_parts.Task", "task.verifier._target_=raising_parts.Checked"],
}
LINE = next(
    number
    for number, line in enumerate((PARTS / "raising_parts.py").read_text().splitlines(), start=1)
    if line.endswith("# here")
)


@pytest.mark.parametrize("part", PARTS_THAT_RAISE)
@pytest.mark.parametrize(
    ("fault", "kind"),
    [("value", "ValueError"), ("key", "KeyError"), ("assertion", "AssertionError")],
)
def test_what_the_users_code_raises_names_its_line(part, fault, kind, treeshare, monkeypatch):
    monkeypatch.chdir(PARTS)
    group = part.split()[0]
    done = treeshare("engine=mock", *PARTS_THAT_RAISE[part], f"+{group}.fault={fault}")
    assert (done.code, done.out) == (2, "")
    assert done.err == f"treeshare: {group}: raising_parts.py:{LINE}: {kind}\n"


def test_a_logger_that_fails_names_its_line(treeshare, monkeypatch):
    monkeypatch.syspath_prepend(PARTS)
    done = treeshare(*MOCK, "logger._target_=raising_parts.Counting", "+logger.fault=key")
    assert (done.code, done.err) == (0, "")
    assert f"raising_parts.py:{LINE}: KeyError: ; the rows are on disk" in done.log


def test_an_exit_in_the_users_code_is_an_error(treeshare):
    done = treeshare(*MOCK, "search._target_=raising_parts.Policy", "+search.fault=exits")
    assert done.code == 2 and done.err.endswith("raising_parts.py:13: SystemExit: 3\n")


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (
            "import no_such_module",
            "mine.py:1: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("x = 1\ny = 1 / 0", "mine.py:2: ZeroDivisionError: division by zero"),
        ("x = 1\ndef f(:", "mine.py:2: SyntaxError: invalid syntax"),
    ],
    ids=["import", "statement", "syntax"],
)
def test_a_module_that_cannot_be_imported_names_its_line(code, said, treeshare, tmp_path):
    (tmp_path / "mine.py").write_text(code)
    done = treeshare(*MOCK, "search._target_=mine.Policy")
    assert (done.code, done.err) == (2, f"treeshare: search: {said}\n")


def test_full_traceback_on_request(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "argv", ["treeshare", *MOCK, "search.breadth=0"])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(SetupError, match="breadth=0 must be at least 1"):
        main()


def test_multirun_with_a_bad_job_runs_the_others(treeshare):
    done = treeshare("-m", *MOCK, "search=tot_bfs", "search.breadth=0,1")
    assert done.code == 2
    assert done.err == (
        "treeshare: job 0 (engine=mock task.limit=1 search=tot_bfs search.breadth=0): "
        "search: breadth=0 must be at least 1\n"
    )
    assert "puzzles         1 of 1" in done.out


def test_wandb_and_torch_are_imported_only_when_used():
    code = (
        "import sys, treeshare.experiments.runs.resumable_run;"
        "assert not {'wandb', 'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
