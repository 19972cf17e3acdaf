"""`treeshare.solve`: the command's trees from Python, kept or not, and left early without harm."""

import asyncio
import json
from dataclasses import replace

import networkx
import pytest
from hydra import compose, initialize_config_module
from task_options import task_options

import treeshare as ts
from treeshare.api import default_evaluator, default_expander
from treeshare.experiments.run import run as run_command
from treeshare.experiments.runs.config import prepare
from treeshare.search import Budget, Choose, Context, Memo, Sample, ToTBFS, ValuePrompt
from treeshare.tasks import Game24, Sorting

# Without countdown, which shares game24's class, and reasoning_gym, which is slow to import.
NAMES = ["blocksworld", "crosswords", "game24", "math", "set_intersection", "sorting"]
FIRST = "game24/1-5-5-5"


class Engine(ts.MockEngine):
    """The scripted engine. It counts, and raises what it is given when it is asked the nth time."""

    def __init__(self):
        super().__init__()
        self.asked = 0
        self.raises = {}
        self.cancelled = []
        self.is_closed = False

    def execute(self, requests):
        self.asked += 1
        if self.asked in self.raises:
            raise self.raises[self.asked]
        return super().execute(requests)

    def cancel(self, request_ids):
        self.cancelled += request_ids

    def close(self):
        self.is_closed = True


def solve(engine=None, task=None, policy=None, **options):
    return ts.solve(
        task or Game24(limit=3),
        engine=engine or Engine(),
        policy=policy or ToTBFS(breadth=2),
        **{"progress": False, **options},
    )


class Strict:
    """Accepts no answer."""

    def check(self, problem, answer):
        return False


def without_times(row):
    """The figures of a row or of totals that are the same in any process."""
    return {name: value for name, value in row.items() if name not in ("seconds", "session")}


def lines(directory):
    text = (directory / "results.jsonl").read_text()
    return [without_times(json.loads(line)) for line in text.splitlines()]


def trees(directory):
    return {path.name: path.read_text() for path in (directory / "trees").iterdir()}


def nodes(graph):
    """All that the nodes hold, in the form that a file can keep: states are text."""
    return networkx.node_link_data(graph.to_networkx(), edges="edges")


@pytest.fixture(scope="module")
def composed():
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        yield lambda *overrides: compose("config", list(overrides))


@pytest.mark.parametrize(
    ("overrides", "make_engine", "options"),
    [
        (["engine=mock", "task.limit=4"], lambda: ts.MockEngine(), {"task": Game24(limit=4)}),
        (
            ["engine=mock", "expander=sample", "budget.requests=9", "answers=2", "max_live=1"],
            lambda: ts.MockEngine(),
            {"expander": Sample(), "budget": Budget(requests=9), "answers": 2, "max_live": 1},
        ),
        (["task.limit=1"], lambda: ts.load_engine("embedded"), {"task": Game24(limit=1)}),
    ],
    ids=["mock", "other parts", "embedded"],
)
def test_the_trees_are_the_commands(overrides, make_engine, options, composed, tmp_path):
    if not any(text.startswith("task.limit") for text in overrides):
        overrides = [*overrides, "task.limit=3"]
    settings = ["search.breadth=2", "seed=7", "progress=false", f"output_dir={tmp_path}/command"]
    summary = run_command(composed(*overrides, *settings))
    engine = ts.LoadedEngine(make_engine(), {"_target_": "any.Engine"})
    run = solve(engine, seed=7, directory=tmp_path / "python", **options)
    engine.close()
    assert lines(run.directory) == lines(summary.directory)
    assert trees(run.directory) == trees(summary.directory)
    assert without_times(vars_of(run.totals)) == without_times(vars_of(summary.totals))


def vars_of(totals):
    return {
        name: getattr(totals, name)
        for name in totals.__dataclass_fields__
        if name != "tokens_per_second"
    }


def test_in_memory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = solve()
    assert run.directory is None
    assert list(tmp_path.iterdir()) == []
    assert len(run) == run.num_problems == 3


def test_a_kept_run_is_the_one_in_memory(tmp_path):
    run, kept = solve(), solve(directory=tmp_path)
    assert kept.directory.is_relative_to(tmp_path / "game24" / "ToTBFS" / "Engine")
    assert list(kept) == list(run)
    for problem in run:
        assert nodes(kept[problem].graph) == nodes(run[problem].graph)
        assert [n.id for n in kept[problem].ranked] == [n.id for n in run[problem].ranked]


def test_the_same_call_again_searches_nothing(tmp_path):
    first = solve(directory=tmp_path)
    engine = Engine()
    again = solve(engine, directory=tmp_path)
    assert engine.asked == 0
    assert again.rows == first.rows
    for problem in first:
        assert nodes(again[problem].graph) == nodes(first[problem].graph)
        assert [n.id for n in again[problem].ranked] == [n.id for n in first[problem].ranked]


@pytest.mark.parametrize(
    "other",
    [
        {"policy": ToTBFS(breadth=3)},
        {"seed": 1},
        {"task": Game24(limit=3, start=1)},
        {"evaluator": ValuePrompt(mode="score")},
        {"budget": Budget(nodes=5)},
        {"expander": Choose(width=2)},
        {"verifier": Strict()},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_parts_are_another_run(other, tmp_path):
    first = solve(directory=tmp_path)
    assert solve(directory=tmp_path, **other).directory != first.directory


def test_a_memo_in_use_is_the_same_part(tmp_path):
    evaluator = Memo(ValuePrompt(mode="score"))
    first = solve(evaluator=evaluator, directory=tmp_path)
    assert solve(evaluator=evaluator, directory=tmp_path).directory == first.directory


@pytest.mark.parametrize("is_kept", [False, True], ids=["memory", "directory"])
def test_an_interrupt_leaves_the_results_and_the_engine(is_kept, tmp_path):
    options = {"max_live": 1, "directory": tmp_path if is_kept else None}
    engine, whole = Engine(), solve(max_live=1)
    engine.raises = {9: KeyboardInterrupt()}
    with pytest.raises(ts.Interrupted, match="interrupted after 1 of 3 puzzles") as caught:
        solve(engine, **options)
    stopped = caught.value.run
    assert isinstance(caught.value, KeyboardInterrupt)
    assert list(stopped) == [FIRST]
    assert nodes(stopped[FIRST].graph) == nodes(whole[FIRST].graph)
    assert engine.cancelled
    assert not engine.is_closed
    rest = solve(engine, **options)
    assert [without_times(vars_row(row)) for row in rest.rows] == [
        without_times(vars_row(row)) for row in whole.rows
    ]


def vars_row(row):
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def test_the_engine_is_left_open():
    engine = Engine()
    solve(engine)
    assert not engine.is_closed


def test_it_runs_inside_a_running_loop():
    """As in Jupyter, whose kernel is an asyncio program."""

    async def cell():
        return solve()

    assert solve().rows[0].problem == asyncio.run(cell()).rows[0].problem


class NotAsync:
    def search(self, ctx: Context):
        return [ctx.root]


class FailsOnOne:
    async def search(self, ctx: Context):
        if ctx.problem.id == FIRST:
            raise RuntimeError("no luck")
        return await ctx.expand(ctx.root)


def test_what_one_puzzle_raises_is_in_the_failures():
    run = solve(policy=FailsOnOne())
    assert len(run) == 2
    (failure,) = run.failures
    assert (failure.problem, failure.error) == (FIRST, "RuntimeError")
    assert "2 of 3 puzzles" in repr(run)
    assert f"1 failed, first {FIRST}" in repr(run)
    with pytest.raises(KeyError, match="failed: RuntimeError: no luck"):
        run[FIRST]
    with pytest.raises(KeyError, match="'nope' is no problem of this run; there are game24/"):
        run["nope"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"answers": 0}, ValueError, "answers=0 must be at least 1"),
        ({"max_live": 0}, ValueError, "max_live=0 must be at least 1"),
        ({"record": True}, ValueError, "record, logger and overwrite need a directory"),
        ({"seed": 0.5}, ValueError, r"seed=0\.5 must be a whole number"),
        ({"budget": 5}, TypeError, r"budget=5 must be a treeshare\.search\.Budget"),
        ({"policy": "tot_bfs"}, TypeError, "policy='tot_bfs' has no method `search`"),
        ({"policy": NotAsync()}, TypeError, "policy=NotAsync: `search` must be an `async def`"),
        ({"policy": ToTBFS}, TypeError, r"policy=ToTBFS is a class: write ToTBFS\(\.\.\.\)"),
        ({"evaluator": Choose()}, TypeError, r"evaluator=Choose\(.*\) has no method `evaluate`"),
        ({"task": Sorting(), "expander": Choose()}, TypeError, "Choose needs a task"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_cannot_be_run_is_refused_before_the_first_search(options, error, message):
    engine = Engine()
    with pytest.raises(error, match=message):
        solve(engine, **options)
    assert engine.asked == 0


def test_a_part_that_the_engine_cannot_serve_is_refused():
    engine = Engine()
    engine.capabilities = replace(engine.capabilities, scores=False)
    with pytest.raises(ValueError, match=r"Choose asks for scores .* no capability `scores`"):
        solve(engine)
    assert engine.asked == 0


def test_an_engine_without_a_description_is_refused_in_a_directory(tmp_path):
    with pytest.raises(ValueError, match=r"engine\.score=.*treeshare\.LoadedEngine\(engine"):
        solve(ts.MockEngine(score=lambda prompt, text: 0.0), directory=tmp_path)
    with pytest.raises(ValueError, match="has no `_target_`"):
        solve(ts.LoadedEngine(Engine(), {}), directory=tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_by_default_are_the_commands(name, composed):
    setup = prepare(composed(*task_options(name)))
    assert default_expander(setup.task) == setup.expander
    assert default_evaluator(setup.task) == setup.evaluator
