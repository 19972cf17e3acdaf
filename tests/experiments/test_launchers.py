"""Jobs of a multirun in other processes, by hydra's own plugins, and sweeps that optimize."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from omegaconf import OmegaConf

from treeshare.experiments.results.jobs import Refusal
from treeshare.experiments.runs.launch import SearchMultirun

POLICIES = """
import os
import time
from pathlib import Path

from treeshare.search import IO


class Good(IO):
    async def search(self, ctx):
        Path(f"{os.getpid()}.txt").write_text(os.environ["OMP_WAIT_POLICY"])
        return await super().search(ctx)


class Bad(IO):
    async def search(self, ctx):
        if ctx.problem.id == "game24/1-5-5-5":
            raise ValueError("a bad policy")
        return await super().search(ctx)


class Killed(IO):
    async def search(self, ctx):
        for _ in range(1000):  # until the first job has ended: joblib ends its process as well
            records = [path.read_text() for path in Path("outputs").glob(".jobs-*/0.json")]
            if any('"streams": [' in record for record in records):
                break
            time.sleep(0.02)
        os.kill(os.getpid(), 9)


class Slow(IO):
    async def search(self, ctx):
        Path(f"{os.getpid()}.txt").touch()
        time.sleep(60)


class Sampled:
    def __init__(self, count):
        if count < 1:
            raise ValueError(f"count={count} must be at least 1")
        self.count = count

    async def search(self, ctx):
        if self.count == 9 and ctx.problem.id == "game24/1-5-5-5":
            raise ValueError("too many")
        return await ctx.sample(ctx.root, "io", self.count)
"""
MULTIRUN = ["-m", "engine=mock", "task.limit=2", "progress=false"]


def needs(plugin):
    is_there = bool(list(metadata.distributions(name=plugin)))
    return pytest.mark.skipif(not is_there, reason="needs the extra `launchers`")


@pytest.fixture
def policies(tmp_path):
    """A user's module in the working directory."""
    (tmp_path / "my_policies.py").write_text(POLICIES)


@pytest.fixture
def multirun(treeshare_process, policies):
    """Runs policies of the module, two puzzles each."""

    def call(names, *more, **env):
        targets = ",".join(f"my_policies.{name}" for name in names)
        return treeshare_process(*MULTIRUN, f"search._target_={targets}", *more, **env)

    return call


def messages(done):
    """The lines of the command itself, each with its job's number alone."""
    lines = [line for line in done.err.splitlines() if line.startswith("treeshare: ")]
    return [re.sub(r"^treeshare: (job \d+) \(.*?\)", r"\1", line) for line in lines]


def left(tmp_path):
    return {path.name for path in (tmp_path / "outputs").iterdir()}


@needs("hydra-joblib-launcher")
def test_joblib_jobs_print_once_and_their_codes_and_totals_reach_the_command(multirun, tmp_path):
    done = multirun(["Good", "Bad", "Absent"], "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.code == 2, done.err
    assert done.out.count("game24 Good MockEngine seed 0\n") == 1
    assert done.out.count("game24 Bad MockEngine seed 0\n") == 1
    assert [line.split(" |")[:2] for line in done.out.splitlines()[-3:]] == [
        ["| search._target_=my_policies.Good", " 0.0%"],
        ["| search._target_=my_policies.Bad", " 0.0%"],
        ["| search._target_=my_policies.Absent", " failed"],
    ]
    bad, absent = sorted(messages(done))
    assert bad.startswith("job 1: 1 of 2 puzzles failed; first game24/1-5-5-5: my_policies.py:")
    assert absent.startswith("job 2: search: Error loading 'my_policies.Absent'")
    assert left(tmp_path) == {"game24", "multirun.yaml"}
    (wait_policy,) = tmp_path.glob("[0-9]*.txt")  # written by the job
    assert wait_policy.read_text() == os.environ.get("OMP_WAIT_POLICY", "passive")


@needs("hydra-joblib-launcher")
def test_joblib_job_that_is_killed_is_named_and_the_others_are_shown(multirun, tmp_path):
    done = multirun(["Good", "Killed"], "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    assert done.code == 1
    assert done.out.splitlines()[-1].startswith("| search._target_=my_policies.Killed | failed |")
    assert done.out.splitlines()[-2].startswith("| search._target_=my_policies.Good | 0.0% |")
    lost, reason = messages(done)
    assert lost == "job 1: ended without a result"
    assert reason.startswith("treeshare: TerminatedWorkerError: ") and "SIGKILL" in reason
    assert left(tmp_path) == {"game24", "multirun.yaml"}


@needs("hydra-joblib-launcher")
def test_joblib_jobs_are_interrupted_in_one_line(policies, tmp_path):
    """An interrupt on a terminal reaches the command and the processes of its jobs."""
    arguments = ["search._target_=my_policies.Slow", "seed=0,1"]
    arguments += ["hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    with subprocess.Popen(
        [Path(sys.executable).with_name("treeshare"), *MULTIRUN, *arguments],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while process.poll() is None and len(list(tmp_path.glob("[0-9]*.txt"))) < 2:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate()
    assert process.returncode == 130
    own = [line for line in err.splitlines() if line.startswith("treeshare: ")]
    assert own == ["treeshare: interrupted; the same command resumes"]
    assert "Traceback" not in err
    assert left(tmp_path) == {"game24", "multirun.yaml"}


@needs("hydra-submitit-launcher")
def test_submitit_jobs_print_into_logs_and_the_command_prints_it_again(multirun, tmp_path):
    """With HYDRA_FULL_ERROR the log of the job that cannot run has the traceback."""
    names = ["Good", "Bad", "Absent"]
    done = multirun(names, "hydra/launcher=submitit_local", HYDRA_FULL_ERROR="1")
    assert done.code == 2, done.err
    assert done.out.count("game24 Good MockEngine seed 0\n") == 1
    assert [line.split(" |")[:2] for line in done.out.splitlines()[-3:]] == [
        ["| search._target_=my_policies.Good", " 0.0%"],
        ["| search._target_=my_policies.Bad", " 0.0%"],
        ["| search._target_=my_policies.Absent", " failed"],
    ]
    bad, absent = messages(done)
    assert bad.startswith("job 1: 1 of 2 puzzles failed; first game24/1-5-5-5: my_policies.py:")
    assert absent.startswith("job 2: SetupError: search: Error loading 'my_policies.Absent'")
    assert left(tmp_path) == {"game24", "multirun.yaml", ".submitit"}
    logs = "".join(path.read_text() for path in tmp_path.glob("outputs/.submitit/*/*_log.*"))
    assert logs.count("game24 Good MockEngine seed 0\n") == 1
    assert logs.count("Traceback") > 0 and "Traceback" not in done.err
    (wait_policy,) = tmp_path.glob("[0-9]*.txt")
    assert wait_policy.read_text() == os.environ.get("OMP_WAIT_POLICY", "passive")


SWEEP = ["hydra/sweeper=optuna", "hydra.sweeper.direction=maximize", "optimize=completion_tokens"]
RANDOM = ["hydra/sweeper/sampler=random", "hydra.sweeper.sampler.seed=9"]


@needs("hydra-optuna-sweeper")
def test_optuna_finds_the_best_of_the_jobs_that_did_not_fail(multirun, tmp_path):
    """With 0 samples a job cannot run, and with 9, which would be the best, a puzzle fails.

    With the seed of the sampler the four trials take the four options.
    """
    trials = ["hydra.sweeper.n_trials=4", "+search.count=choice(0,1,2,9)"]
    done = multirun(["Sampled"], *SWEEP, *RANDOM, *trials)
    assert done.code == 2, done.err
    results = yaml.safe_load((tmp_path / "outputs/optimization_results.yaml").read_text())
    assert results["best_params"] == {"+search.count": 2}
    tokens = [
        int(row["completion_tokens"])
        for path in tmp_path.glob("outputs/*/*/*/*/results.jsonl")
        for row in map(json.loads, path.read_text().splitlines())
        if row["nodes"] + row["parse_failures"] == 3
    ]
    assert len(tokens) == 2 and results["best_value"] == sum(tokens)
    assert done.out.endswith(
        f"\n\nbest            +search.count=2: completion_tokens {sum(tokens)}\n"
        "optimized       outputs/optimization_results.yaml\n"
    )
    assert {line.split(": ")[1] for line in messages(done)} == {
        "search",
        "1 of 2 puzzles failed; first game24/1-5-5-5",
    }


@needs("hydra-optuna-sweeper")
@needs("hydra-joblib-launcher")
def test_optuna_and_joblib_together(multirun):
    grid = ["hydra/sweeper/sampler=grid", "+search.count=choice(1,2)"]
    done = multirun(["Sampled"], *SWEEP, *grid, "hydra/launcher=joblib")
    assert done.code == 0, done.err
    assert done.out.count("game24 Sampled MockEngine seed 0\n") == 2
    assert "\n\nbest            +search.count=2: completion_tokens " in done.out
    assert messages(done) == []


@needs("hydra-optuna-sweeper")
def test_optuna_without_any_value_ends_in_one_line(multirun):
    trials = ["hydra.sweeper.n_trials=1", "+search.count=choice(-1,0)"]
    done = multirun(["Sampled"], *SWEEP, *trials)
    assert done.code == 2
    assert [line for line in messages(done) if not line.startswith("job ")] == [
        "treeshare: ValueError: No trials are completed yet."
    ]
    assert "Traceback" not in done.err


def test_metric_that_there_is_not_is_refused_before_any_job(treeshare):
    for more in ([], ["-m", "seed=0,1"]):
        done = treeshare(*more, "engine=mock", "optimize=top2")
        assert (done.code, done.out) == (2, "")
        assert done.err.startswith(
            "treeshare: optimize='top2' must be one of puzzles, top1, any_of_b,"
        )
        assert done.err.count("\n") == 1


@pytest.mark.parametrize("direction", ["minimize", SimpleNamespace(name="minimize")])
def test_accuracy_is_not_minimized(direction):
    """Optuna's sweeper minimizes by default. Its direction is a member of an enum."""
    config = OmegaConf.create({"optimize": "any_of_b"}, flags={"allow_objects": True})
    config.hydra = {"sweep": {"dir": "outputs"}, "sweeper": {"direction": direction}}
    with pytest.raises(Refusal, match=r"lowest any_of_b: write hydra\.sweeper\.direction=maximize"):
        SearchMultirun().on_multirun_start(config)
    config.optimize = "tokens"
    SearchMultirun().on_multirun_start(config)
