"""The wandb logger with the real SDK: its offline files are read back, and a server is online."""

import fcntl
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
import yaml
from code_blocks import python_blocks
from places import ROOT
from wandb_log import WandbLog, offline_folders, only_log
from wandb_server import KEY, WandbServer

from treeshare import LoadedEngine
from treeshare.experiments.loggers.metrics import Metrics
from treeshare.experiments.loggers.wandb_logger import WandbLogger
from treeshare.experiments.results.summary import replayed
from treeshare.experiments.viewer.view import tree_page
from treeshare.llm_backend.engines.mock import MockEngine

TARGET = "treeshare.experiments.loggers.wandb_logger.WandbLogger"
WANDB = {"_target_": TARGET}
COMMAND = ["engine=mock", "search=io", "task.limit=2", "logger=wandb"]
TREE_PAGE = "treeshare.experiments.viewer.view.tree_page"
PAGE = ROOT / "docs" / "wandb.md"
FAILED_GAME = "1 5 7 8"  # the third of the three puzzles


@pytest.fixture
def wandb():
    """The SDK as a new process has it: it reads its variables once."""
    import wandb

    wandb.teardown()
    yield wandb
    wandb.teardown()


# Key -> its variable, what the variable and the key are set to, the default, and how it is logged.
KEYS = {
    "project": ("WANDB_PROJECT", "p-env", "p-key", "treeshare", lambda log: log.run["project"]),
    "entity": ("WANDB_ENTITY", "e-env", "e-key", None, lambda log: log.run.get("entity")),
    "name": ("WANDB_NAME", "n-env", "n-key", "the title", lambda log: log.run["display_name"]),
    "group": ("WANDB_RUN_GROUP", "g-env", "g-key", "abc", lambda log: log.run["run_group"]),
    "job_type": ("WANDB_JOB_TYPE", "j-env", "j-key", "search", lambda log: log.run["job_type"]),
    "tags": ("WANDB_TAGS", "a,b", ["c"], None, lambda log: log.run.get("tags")),
    "notes": ("WANDB_NOTES", "o-env", "o-key", None, lambda log: log.run.get("notes")),
}


@pytest.mark.parametrize("given", ["nothing", "variables", "variables and keys"])
def test_keys_and_variables(given, wandb, tmp_path, monkeypatch):
    """A key beats its variable, and the variable beats the default."""
    directory = tmp_path / "abc-seed0"
    directory.mkdir()
    if given != "nothing":
        for variable, value, *_ in KEYS.values():
            monkeypatch.setenv(variable, value)
        monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    keys = {key: row[2] for key, row in KEYS.items()} if given == "variables and keys" else {}
    logger = WandbLogger(**keys, dir=str(directory) if keys else None)
    logger.start(directory, "the title", {})
    logger.finish(None)
    log = only_log(tmp_path if given == "variables" else directory)
    column = {"nothing": 3, "variables": 1, "variables and keys": 2}[given]
    for key, row in KEYS.items():
        expected = ["a", "b"] if row[column] == "a,b" else row[column]
        assert row[4](log) == expected, key
    assert log.run["run_id"] == "abc-seed0" and log.exit_code == 1


@pytest.mark.parametrize(
    ("variables", "key", "expected"),
    [
        ({}, None, "offline"),
        ({"WANDB_MODE": "disabled"}, None, "disabled"),
        ({"WANDB_MODE": "disabled"}, "offline", "offline"),
        ({"WANDB_MODE": "offline", "WANDB_SWEEP_ID": "s"}, None, "offline"),
        ({"WANDB_MODE": "online"}, None, "online"),
        ({"WANDB_MODE": "online"}, "disabled", "disabled"),
        ({"WANDB_SWEEP_ID": "s"}, None, "online"),  # an agent waits for the figures
    ],
)
def test_mode(variables, key, expected, wandb, tmp_path, monkeypatch):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if expected == "online":
        with pytest.raises(ValueError, match="mode=online needs `wandb login` or WANDB_API_KEY"):
            WandbLogger(mode=key)
        return
    logger = WandbLogger(mode=key)
    logger.start(tmp_path, "title", {})
    logger.finish(None)
    assert bool(offline_folders(tmp_path)) == (expected == "offline")


def test_every_metric_is_that_of_the_rows(wandb, run_logged, run_directory, disk_rows):
    """One point for each puzzle, with the totals of that moment; the failed puzzle is counted."""
    summary = run_logged(WANDB, refused=FAILED_GAME)
    assert len(summary.rows) == 2 and len(summary.failures) == 1
    log = only_log(run_directory())
    metrics = Metrics()
    expected = [metrics.of_puzzle(row, totals) for row, totals in replayed(*disk_rows())]
    assert [{**row, "failed": 0} for row in log.puzzles] == [pytest.approx(m) for m in expected]
    assert [row["failed"] for row in log.history if "failed" in row][-1] == 1
    final = metrics.of_run(summary.totals) | {"failed": 1, "num_problems": 3}
    assert {name: log.summary[name] for name in final} == pytest.approx(final)
    assert log.exit_code == 1


def test_metrics_are_drawn_over_puzzles_and_the_page_explains_each(
    wandb, run_logged, run_directory
):
    run_logged(WANDB)
    log = only_log(run_directory())
    assert log.axes == {"puzzles": None, "completion_tokens": None, "seconds": None, "*": "puzzles"}
    page = PAGE.read_text()
    for name in [*log.puzzles[-1], "num_problems"]:
        prefix = "puzzle/" if name.startswith("puzzle/") else ""
        assert f"`{name}`" in page or (prefix and f"`{name.removeprefix(prefix)}`" in page), name


def test_table_has_each_puzzle_with_its_tree(wandb, run_logged, run_directory):
    run_logged(
        WANDB | {"tree_page": {"_target_": "hydra.utils.get_method", "path": TREE_PAGE}},
        refused=FAILED_GAME,
    )
    log = only_log(run_directory())
    assert [row["problem"] for row in log.table] == [
        "game24/1-5-5-5", "game24/1-5-6-7", "game24/1-5-7-8"
    ]  # fmt: skip
    for row in log.table[:2]:
        (tree,) = run_directory().glob(f"trees/{row['problem'].replace('/', '+')}.json")
        assert row["tree"] == tree_page(tree)
        assert row["error"] is None and row["nodes"] >= 1 and "\n" not in row["answers"]
    failed = log.table[2]
    assert "PromptTooLong" in failed["error"] and failed["tree"] is failed["nodes"] is None
    assert len(log.artifacts["trees"]) == 2


def test_resumed_run_is_written_anew(wandb, run_logged, run_directory):
    assert run_logged(WANDB, refused=FAILED_GAME).failures
    first = only_log(run_directory())
    assert not run_logged(WANDB).failures
    second = only_log(run_directory())
    assert [row["puzzles"] for row in second.puzzles] == [1, 2, 3]
    assert second.puzzles[:2] == first.puzzles and second.run["run_id"] == first.run["run_id"]
    assert (first.exit_code, second.exit_code) == (1, 0)
    (earlier,) = run_directory().glob("wandb/earlier-1/offline-run-*")
    assert WandbLog(earlier).puzzles == first.puzzles


def test_log_of_a_killed_run_is_moved_away(wandb, tmp_path):
    """wandb makes the folder before the file. Logs of other runs stay."""
    killed, others = "offline-run-20260101_000000-abc", "offline-run-20260101_000000-abc-1"
    for name in (killed, others):
        (tmp_path / "wandb" / name).mkdir(parents=True)
    (tmp_path / "wandb" / others / "run-abc-1.wandb").touch()
    (tmp_path / "abc").mkdir()
    logger = WandbLogger(dir=str(tmp_path))
    logger.start(tmp_path / "abc", "title", {})
    logger.finish(None)
    left = {folder.name for folder in offline_folders(tmp_path)}
    assert killed not in left and others in left and len(left) == 2
    assert (tmp_path / "wandb" / "earlier-1" / killed).is_dir()


def test_finished_run_is_logged_from_its_rows(wandb, run_logged, run_directory):
    """Without a logger at first; then twice, which moves the earlier log away."""
    run_logged({"_target_": "treeshare.experiments.loggers.logger.NoLogger"})
    results = (run_directory() / "results.jsonl").read_bytes()
    for number in range(2):
        run_logged(WANDB)
        log = only_log(run_directory())
        assert [row["puzzles"] for row in log.puzzles] == [1, 2, 3]
        assert len(log.table) == 3 and log.exit_code == 0
        assert len(list(run_directory().glob("wandb/earlier-*"))) == number
    assert (run_directory() / "results.jsonl").read_bytes() == results


def test_code_of_the_user_and_the_commit_are_logged(
    wandb, run_logged, run_directory, tmp_path, monkeypatch
):
    git = ["git", "-c", "user.name=u", "-c", "user.email=u@example.com"]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        subprocess.run([*git, *arguments], cwd=tmp_path, check=True)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tmp_path, capture_output=True)
    (tmp_path / "logged_policies.py").write_text(
        "from treeshare.search import IO\n\n\nclass Mine(IO):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    run_logged(WANDB, search={"_target_": "logged_policies.Mine"})
    log = only_log(run_directory())
    assert "logged_policies.py" in log.artifacts["code"]
    commits = [record.get("git", {}).get("commit") for record in log.of_type("environment")]
    assert head.stdout.decode().strip() in commits


def test_config_is_logged_once(wandb, treeshare, run_directory):
    """`model` stands in the configuration twice, as `engine.model` is an interpolation."""
    treeshare("engine=mock", "search=io", "task.limit=1", "logger=wandb")
    config = only_log(run_directory()).config
    assert config["search"]["_target_"] == "treeshare.search.IO" and config["name"] == "io"
    assert not {"model", "logger", "progress", "output_dir"} & set(config)
    assert config["directory"] == str(run_directory())


def test_a_run_of_the_users_goes_on(wandb, tmp_path, run_logged, run_directory):
    with wandb.init(mode="offline", dir=tmp_path, project="mine") as mine:
        mine.log({"x": 1})
        run_logged(WANDB)
        mine.log({"x": 2})
    assert len(only_log(run_directory()).puzzles) == 3
    assert [row["x"] for row in only_log(tmp_path).history] == [1, 2]


# Online, at a server of our own.


@pytest.fixture
def server(wandb, monkeypatch):
    with WandbServer() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def numbers(run):
    """The numbers of finished puzzles in the order of the history at the server."""
    return [row["puzzles"] for row in run.history if "puzzle/nodes" in row]


def test_online_run_is_resumed_without_doubles(server, run_logged, run_directory):
    online = WANDB | {"mode": "online"}
    run_logged(online, refused=FAILED_GAME)
    (run,) = server.runs.values()
    assert numbers(run) == [1, 2] and run.summary["failed"] == 1 and run.exit_code == 1
    for _ in range(2):  # resumed, then finished
        run_logged(online)
        assert list(server.runs.values()) == [run]
        assert numbers(run) == [1, 2, 3] and run.summary["puzzles"] == 3 and run.exit_code == 0


@pytest.fixture
def wandb_sync(server):
    """The command of that name, for all logs in the `wandb` folder of a run."""

    def sync(run_directory):
        command = [sys.executable, "-m", "wandb", "sync", *offline_folders(run_directory)]
        environment = {**os.environ, **server.environment}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return sync


@pytest.mark.parametrize("syncs", [(2,), (0, 1, 3)], ids=str)
def test_resumed_offline_run_is_synced_without_doubles(
    syncs, server, run_logged, run_directory, wandb_sync
):
    """Whenever `wandb sync` is called in between, wandb has every puzzle once.

    The sessions 0 and 1 leave puzzles unsolved, session 2 ends the run, and session 3 logs it
    again.
    """
    for session, refused in enumerate(("1 5", FAILED_GAME, None, None)):
        run_logged(WANDB, refused=refused)
        if session in syncs:
            wandb_sync(run_directory())
    (run,) = server.runs.values()
    assert numbers(run) == [1, 2, 3] and run.exit_code == 0
    assert [row["_step"] for row in run.history] == sorted({row["_step"] for row in run.history})
    assert run.summary["puzzles"] == run.summary["num_problems"] == 3


def test_offline_after_online_is_synced_without_doubles(
    server, run_logged, run_directory, wandb_sync
):
    run_logged(WANDB | {"mode": "online"}, refused=FAILED_GAME)
    run_logged(WANDB)
    wandb_sync(run_directory())
    (run,) = server.runs.values()
    assert numbers(run) == [1, 2, 3] and run.summary["puzzles"] == 3 and run.exit_code == 0


def test_run_that_began_again_is_another_run(server, run_logged, run_directory):
    """Its directory has the same name after `overwrite=true`; meta.json says when it began."""
    online = WANDB | {"mode": "online"}
    run_logged(online)
    meta = run_directory() / "meta.json"
    about = json.loads(meta.read_text())
    meta.write_text(json.dumps(about | {"began": "2026-11-29T12:00:00"}))
    run_logged(online)
    assert [numbers(run) for run in server.runs.values()] == [[1, 2, 3], [1, 2, 3]]


def test_server_that_refuses_ends_the_run_before_its_first_search(
    server, run_logged, run_directory
):
    server.is_down = True
    with pytest.raises(Exception, match="logger: wandb: "):
        run_logged(WANDB | {"mode": "online"})
    assert not (run_directory() / "results.jsonl").read_text()


# Processes of their own, as users start them.

CONNECTIONS = """
import json, os, sys
def audit(event, args):
    if event.startswith("socket.") and event.partition(".")[2] in ("connect", "getaddrinfo"):
        where = args[1] if event == "socket.connect" else args[0]
        host = where[0] if isinstance(where, tuple) else where
        if event != "socket.connect" or args[0].family != 1:  # AF_UNIX
            with open(os.environ["CONNECTIONS"], "a") as file:
                file.write(json.dumps([event, str(host)]) + "\\n")
sys.addaudithook(audit)
"""


def test_offline_run_sends_nothing_and_keeps_its_files_in_the_run_directory(
    treeshare_process, tmp_path, run_directory
):
    """No file holds the key of the login."""
    (tmp_path / "sitecustomize.py").write_text(CONNECTIONS)
    log = tmp_path / "connections"
    env = {"CONNECTIONS": str(log), "PYTHONPATH": str(tmp_path), "WANDB_API_KEY": KEY}
    done = treeshare_process(*COMMAND, **env)
    assert done.code == 0, done.err
    offline = only_log(run_directory())
    assert offline.folder.name.endswith(offline.run["run_id"])
    assert list((run_directory() / "wandb/data").rglob("staging/*"))
    assert not (tmp_path / "wandb").exists() and not (tmp_path / "artifacts").exists()
    assert not [path for path in (tmp_path / "home").rglob("*") if path.is_file()]
    lines = log.read_text().splitlines() if log.exists() else []
    hosts = [json.loads(line)[1] for line in lines]
    assert not [host for host in hosts if not host.startswith(("127.", "localhost", "::1"))]
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert len(files) > 10


def test_what_the_run_prints_is_logged_and_the_bar_stays_a_bar(tmp_path, run_directory):
    """On a terminal, with wandb's capture of the streams."""
    terminal, its_end = pty.openpty()
    fcntl.ioctl(its_end, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 100, 0, 0))
    process = subprocess.Popen(
        [Path(sys.executable).with_name("treeshare"), *COMMAND],
        cwd=tmp_path,
        env={**os.environ, "WANDB_CONSOLE": "auto"},
        stdout=subprocess.DEVNULL,
        stderr=its_end,
    )
    os.close(its_end)
    shown = b""
    with suppress(OSError):  # Linux raises an error at the end of a terminal
        while data := os.read(terminal, 4096):
            shown += data
    os.close(terminal)
    assert process.wait() == 0
    (log,) = run_directory().glob("wandb/offline-run-*/files/output.log")
    assert b"2/2" in shown and "2/2" in log.read_text()


def test_jobs_of_one_process_have_logs_of_their_own(wandb, treeshare, tmp_path):
    done = treeshare("-m", "seed=0,1", *COMMAND)
    assert done.code == 0 and "WARNING" not in done.err
    directories = list(tmp_path.glob("outputs/*/*/*/*"))
    assert len(directories) == 2
    for directory in directories:
        assert len(only_log(directory).table) == 2
        assert list(directory.glob("wandb/data/artifacts/staging/*"))


# Sweeps, as docs/wandb.md shows them.

SWEEPS = [
    yaml.safe_load(block)
    for block in re.findall(r"^```yaml\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
]
AGENT = """
import os
from wandb import wandb_agent
wandb_agent.Agent.POLL_INTERVAL = 0.1  # seconds; the default makes the test slow
wandb_agent.run_agent("team/trees/s")
"""


def trial(sweep):
    """The first value of each parameter."""
    specs = sweep["parameters"].items()
    return {key: spec["values"][0] if "values" in spec else spec["min"] for key, spec in specs}


def command_line(sweep, arguments):
    """What wandb's agent starts for a trial, without `env`, on the mock engine."""
    from wandb.sdk.launch.sweeps import utils

    values = {key: {"value": value} for key, value in arguments.items()}
    macros = utils.create_sweep_command_args({"args": values})
    macros |= {"env": [], "program": [sweep["program"]]}
    program, *given = [
        word
        for part in utils.create_sweep_command(list(sweep["command"]))
        for word in (macros[part[2:-1]] if part.startswith("${") else [part])
    ]
    assert program == "treeshare"
    return [*given, "engine=mock", "task.limit=2"]


@pytest.mark.parametrize("sweep", SWEEPS, ids=lambda sweep: sweep["method"])
def test_trial_of_a_sweep_offline(sweep, wandb, treeshare, run_directory, monkeypatch):
    monkeypatch.setenv("WANDB_SWEEP_ID", "s")
    monkeypatch.setenv("WANDB_RUN_ID", "trial1")
    monkeypatch.setenv("WANDB_MODE", "offline")
    arguments = trial(sweep)
    done = treeshare(*command_line(sweep, arguments))
    assert done.code == 0, done.err
    log = only_log(run_directory())
    assert (log.run["run_id"], log.run["sweep_id"]) == ("trial1", "s")
    assert sweep["metric"]["name"] in log.summary
    for key, value in arguments.items():
        if "." in key:
            group, _, name = key.partition(".")
            assert log.config[group][name] == value


def test_agent_of_a_sweep(server, tmp_path, monkeypatch):
    """wandb's own agent starts two trials of equal parameters: the second searches nothing."""
    (sweep, _) = SWEEPS
    sweep = sweep | {"command": [*sweep["command"], "engine=mock", "task.limit=2"]}
    server.sweep_config = yaml.safe_dump(sweep)
    server.trials = [trial(sweep), trial(sweep)]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, "-c", AGENT],
        cwd=tmp_path,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "Ignoring" not in done.stderr, done.stderr
    first, second = server.runs.values()
    for run in (first, second):
        assert run.name.startswith("trial") and run.fields["sweep"] == "s"
        assert run.fields["project"] == "trees" and run.exit_code == 0
        assert numbers(run) == [1, 2] and run.summary["puzzles"] == 2 and "top1" in run.summary
    assert len(list(tmp_path.glob("outputs/*/*/*/*/results.jsonl"))) == 1


def test_the_pages_code_runs(wandb, tmp_path, monkeypatch):
    """On one puzzle, without the model."""
    monkeypatch.chdir(tmp_path)
    (code,) = python_blocks(PAGE.read_text())
    code = code.replace("limit=20", "limit=1").replace('ts.load_engine("embedded")', "mock")
    engine = LoadedEngine(MockEngine(), {"_target_": "treeshare.llm_backend.MockEngine"})
    exec(code, names := {"mock": engine})
    log = only_log(names["run"].directory)
    assert log.run["tags"] == ["quick"] and "<html" in log.table[0]["tree"]
