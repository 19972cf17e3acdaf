"""The pages of docs/ agree with the code: examples run, commands compose, tables are the code's."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from importlib import metadata

import pytest
import yaml
from code_blocks import python_blocks
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.utils import get_object
from page_examples import example
from places import PACKAGE, ROOT

from treeshare.experiments.run import main
from treeshare.experiments.runs.config import keep_given_keys
from treeshare.experiments.runs.renamed_keys import RENAMED
from treeshare.search.policies.catalog import describe, markdown

DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text() for path in sorted(DOCS.glob("*.md"))}
PAGES["README.md"] = (ROOT / "README.md").read_text()
ALL_PAGES = sorted([*DOCS.rglob("*.md"), *ROOT.glob("*.md")])
POLICIES = PAGES["policies.md"]
ARCHITECTURE = PAGES["architecture.md"]
LOGS = sorted((DOCS / "log").glob("*.md"))
EXAMPLES = {
    "walks.py": "write_a_policy.md",
    "lookahead.py": "write_a_policy.md",
    "my_evaluators.py": "write_an_evaluator.md",
    "my_expanders.py": "write_an_expander.md",
    "my_engines.py": "add_an_engine.md",
}
IN_PYTHON = ["add_a_model.md", "from_llm_reasoners.md", "from_tree_of_thought_llm.md"]
WITHOUT_CONFIG = {("--help",), ("--describe",), ("--describe", "tot_bfs")}  # these compose nothing


@pytest.fixture
def run(tmp_path, monkeypatch, capfd):
    """Runs an example through the command that its page names, on the mock engine, in `tmp_path`.

    The command runs in this process: tests/test_readme.py starts it as users do.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))  # the command appends the directory
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def call(name, *arguments):
        code, command = example(PAGES[EXAMPLES[name]], name)
        (tmp_path / name).write_text(code)
        monkeypatch.delitem(sys.modules, name.removesuffix(".py"), raising=False)
        monkeypatch.setattr(sys, "argv", ["treeshare", *command, "engine=mock", *arguments])
        returncode = main()
        return subprocess.CompletedProcess(sys.argv, returncode, *capfd.readouterr())

    return call


def lines_of(tmp_path, name):
    (path,) = tmp_path.glob(f"outputs/**/{name}")
    return [json.loads(line) for line in path.read_text().splitlines()]


def commands(page):
    """The arguments of every `treeshare ...` of a page, in blocks of code and in its lines."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    lines = "\n".join(blocks).replace("\\\n", " ")  # a line that ends in `\` goes on in the next
    found = re.findall(r"^treeshare (.+)", lines, re.MULTILINE)
    found += re.findall(r"`treeshare ([^`]+)`", prose)
    return [tuple(shlex.split(text, comments=True)) for text in found]


def jobs(arguments):
    """Overrides of jobs of a command: with `-m` as many as show each value of each key once."""
    if arguments[0] != "-m":
        return [list(arguments)]
    choices = []
    for override in OverridesParser.create().parse_overrides(list(arguments[1:])):
        values = override.sweep_string_iterator() if override.is_sweep_override() else [None]
        key = override.get_key_element()
        choices.append([override.input_line if v is None else f"{key}={v}" for v in values])
    num_jobs = max(map(len, choices), default=1)
    return [[values[i % len(values)] for values in choices] for i in range(num_jobs)]


COMMANDS = [
    pytest.param(arguments, id=f"{name}: {' '.join(arguments)}")
    for name, page in PAGES.items()
    for arguments in dict.fromkeys(commands(page))
    if arguments not in WITHOUT_CONFIG and "--config-dir" not in arguments
]


def test_commands_are_found():
    with_commands = {name for name, page in PAGES.items() if commands(page)}
    assert with_commands >= {"README.md", "policies.md", "tasks.md", "game24.md", "install.md"}
    assert "slurm.md" in with_commands


PLUGINS = {"joblib": "hydra-joblib-launcher", "optuna": "hydra-optuna-sweeper"}
PLUGINS |= dict.fromkeys(("submitit_local", "submitit_slurm"), "hydra-submitit-launcher")


@pytest.mark.parametrize("arguments", COMMANDS)
def test_command_composes(arguments):
    for argument in arguments:
        key, _, option = argument.partition("=")
        if key in ("hydra/launcher", "hydra/sweeper") and option in PLUGINS:
            is_there = any(metadata.distributions(name=PLUGINS[option]))
            if not is_there:
                pytest.skip("needs the extra `launchers`")
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        for overrides in jobs(arguments):
            keep_given_keys(compose("config", overrides), overrides)


OWN = PAGES["own_configs.md"]
OWN_FILES = dict(re.findall(r"^`(my_conf/[\w/]+\.yaml)`:\n\n```yaml\n(.*?)^```", OWN, re.M | re.S))


@pytest.mark.parametrize("arguments", commands(OWN), ids=" ".join)
def test_commands_with_own_configuration_files_run(arguments, tmp_path, monkeypatch, capfd):
    for name, text in OWN_FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    policy, _ = example(PAGES["write_a_policy.md"], "walks.py")
    (tmp_path / "walks.py").write_text(policy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "walks", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    limit = [] if any("limit" in text for text in arguments) else ["task.limit=2"]
    monkeypatch.setattr(sys, "argv", ["treeshare", *arguments, "engine=mock", *limit])
    try:
        assert main() == 0
    except SystemExit as end:  # of --help
        assert not end.code
    printed = capfd.readouterr()
    if "--help" in arguments:
        assert re.search(r"^search: .*\bmy_walks\b.*\bwide_beam\b", printed.out, re.M)
    else:
        assert re.search(r"^puzzles +2 of 2$", printed.out, re.M)
    if "hydra/job_logging=to_file" in arguments:
        assert " INFO tot_bfs on 2 puzzles of game24\n" in (tmp_path / "my_run.log").read_text()
        assert printed.err == ""


def test_every_file_of_own_configurations_is_used():
    assert len(OWN_FILES) == OWN.count("```yaml") == OWN.count("`my_conf/") - OWN.count("(my_conf")
    used = " ".join(argument for arguments in commands(OWN) for argument in arguments)
    for name in OWN_FILES:
        assert re.search(rf"=(\w+,)*{name.rpartition('/')[2].removesuffix('.yaml')}\b", used), name


def test_every_code_to_save_is_run():
    to_save = re.findall(r"Save this as `([\w.]+)`", "".join(PAGES[name] for name in PAGES))
    assert sorted(to_save) == sorted([*EXAMPLES, "my_policies.py", "my_tasks.py"])


@pytest.mark.parametrize("name", ["walks.py", "lookahead.py"])
def test_policy_example_runs(name, run, tmp_path):
    done = run(name, "task.limit=3")
    assert done.returncode == 0, done.stderr
    assert f"game24 {name.removesuffix('.py').title()} MockEngine" in done.stdout
    rows = lines_of(tmp_path, "results.jsonl")
    assert len(rows) == 3
    assert all(row["num_answers"] for row in rows)
    # The puzzles' loops go on side by side: all of them take no more rounds than the longest.
    assert lines_of(tmp_path, "sessions.jsonl")[-1]["rounds"] == max(row["rounds"] for row in rows)


@pytest.mark.parametrize(
    ("name", "calls", "num_ranked"),
    [("walks.py", 60, 5), ("lookahead.py", 70, 3)],  # the first five of ctx.ranked(); ctx.best
)
def test_policy_example_ended_by_the_budget_has_a_ranking(name, calls, num_ranked, run, tmp_path):
    done = run(name, "task.limit=2", f"budget.requests={calls}")
    assert done.returncode == 0, done.stderr
    for row in lines_of(tmp_path, "results.jsonl"):
        assert row["budget_hit"] == "requests"
        assert len(row["answers"]) == num_ranked


def test_the_example_without_gather_has_none_and_the_other_has():
    page = PAGES["write_a_policy.md"]
    assert "gather" not in example(page, "walks.py")[0]
    assert "ctx.gather(" in example(page, "lookahead.py")[0]


def test_lookahead_scores_a_level_in_two_rounds(run, tmp_path):
    done = run("lookahead.py", "task.limit=1")
    assert done.returncode == 0, done.stderr
    (row,) = lines_of(tmp_path, "results.jsonl")
    # The root; then the children and values of levels 1 and 2. Level 3 is terminal and has values.
    assert row["rounds"] == 1 + 2 + 2


def test_evaluator_example_runs(run, tmp_path):
    done = run("my_evaluators.py", "task.limit=2")
    assert done.returncode == 0, done.stderr
    rows = lines_of(tmp_path, "results.jsonl")
    assert [row["parse_failures"] for row in rows] == [0, 0]
    for path in tmp_path.glob("outputs/**/trees/*.json"):
        nodes = json.loads(path.read_text())["nodes"]
        values = [node["value"] for node in nodes if node["id"] != 0]
        assert len(values) > 1
        assert all(0 <= value <= 1 for value in values)
    assert [row["rounds"] for row in rows] == [6, 6]  # expand and evaluate, three levels


def test_evaluator_example_counts_what_cannot_be_read(run, tmp_path):
    done = run("my_evaluators.py", "task.limit=1", "engine.replies=[sure,hm]")
    assert done.returncode == 0, done.stderr
    (row,) = lines_of(tmp_path, "results.jsonl")
    assert 0 < row["parse_failures"] < row["requests"] / 2


def test_evaluator_example_takes_its_parameter(run, tmp_path):
    done = run("my_evaluators.py", "task.limit=1", "++evaluator.weight=0.3")
    assert done.returncode == 0, done.stderr


def test_expander_example_runs(run, tmp_path):
    proposals = "engine.replies=['5 * 5 = 25', '5 - 1 = 4', '1 + 5 = 6']"
    done = run("my_expanders.py", "task.limit=4", proposals)
    assert done.returncode == 0, done.stderr
    rows = lines_of(tmp_path, "results.jsonl")
    assert len(rows) == 4
    assert sum(row["nodes"] for row in rows) > len(rows)
    for path in tmp_path.glob("outputs/**/trees/*.json"):
        nodes = json.loads(path.read_text())["nodes"]
        assert all(0 < node["prior"] <= 1 for node in nodes if node["id"] != 0)


def test_engine_example_runs(run, tmp_path):
    done = run("my_engines.py", "task.limit=2")
    assert done.returncode == 0, done.stderr
    assert "game24 tot_bfs TrigramEngine" in done.stdout
    rows = lines_of(tmp_path, "results.jsonl")
    assert all(row["num_answers"] for row in rows)


@pytest.mark.parametrize("name", IN_PYTHON)
def test_python_example_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (code,) = (block for block in python_blocks(PAGES[name]) if "import treeshare as ts" in block)
    names = {"__name__": name}
    exec(compile(code, name, "exec"), names)
    run = names["run"]
    assert not run.failures
    assert all(result.answers for result in run.values())
    assert str(run.table()) in capsys.readouterr().out


def test_the_prompt_of_the_tasks_page_is_asked(tmp_path, monkeypatch):
    page = PAGES["tasks.md"].partition("## Prompts\n")[2]
    (prompt,) = re.findall(r"Write `my_prompt.txt`:\n\n```text\n(.*?)```", page, re.DOTALL)
    (command,) = (arguments for arguments in commands(page) if "search=beam" in arguments)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_prompt.txt").write_text(prompt)
    (tmp_path / "mine.jsonl").write_text('{"question": "What is 2 + 3?", "answer": 5}')
    replies = ["engine=mock", "engine.replies=['Answer: 5']", "record=true", "evaluator=oracle"]
    monkeypatch.setattr(sys, "argv", ["treeshare", *command, *replies])
    assert main() == 0
    (row,) = lines_of(tmp_path, "results.jsonl")
    assert row["correct_top1"]
    (log,) = tmp_path.glob("outputs/**/requests.jsonl")
    asked = json.loads(log.read_text().splitlines()[0])["prompt"]
    assert asked.startswith("Solve this problem. Write one step a line, and end with")
    assert "A box holds 4 rows" in asked  # the task's own examples
    assert asked.endswith("\n\nQuestion: What is 2 + 3?\nSolution:\n")


PLACEHOLDERS = PAGES["tasks.md"].partition("| task | placeholders |\n|---|---|\n")[2]


@pytest.mark.parametrize(
    "row", PLACEHOLDERS.partition("\n\n")[0].splitlines(), ids=lambda row: row.split("`")[1]
)
def test_placeholders_of_the_tasks_page_are_the_codes(row):
    name, *named = re.findall(r"`(\w+)`", row)
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        templates = get_object(compose("config", [f"task={name}"]).task._target_).templates
    texts = "".join(map(templates.text, templates.roles))
    assert set(re.findall(r"\{(\w+)\}", texts)) - {"examples", "reply"} == set(named)


def test_shards_of_the_slurm_page_are_put_together(tmp_path, monkeypatch, capfd):
    """The script runs with the variables that Slurm sets, and then its command without a shard."""
    page = PAGES["slurm.md"]
    (script,) = re.findall(r"^srun treeshare (.+)", page, re.MULTILINE)
    (together,) = (c for c in commands(page) if c[0] == "task=countdown")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLURM_ARRAY_TASK_COUNT", "2")
    small = ["engine=mock", "search=io", "task.limit=5"]
    for index in ("0", "1"):
        monkeypatch.setenv("SLURM_ARRAY_TASK_ID", index)
        shard = shlex.split(os.path.expandvars(script))
        monkeypatch.setattr(sys, "argv", ["treeshare", *shard, *small])
        assert main() == 0
    monkeypatch.setattr(sys, "argv", ["treeshare", *together, *small])
    assert main() == 0
    assert "puzzles         5 of 5\n" in capfd.readouterr().out
    (directory,) = tmp_path.glob("outputs/countdown/io/MockEngine/*")
    assert len((directory / "results.jsonl").read_text().splitlines()) == 5


def test_table_of_policies_is_the_codes():
    assert markdown() in POLICIES, "put policies.catalog.markdown() in docs/policies.md"


@pytest.mark.parametrize("policy", [row.policy for row in describe()])
def test_policy_is_told_of_in_one_section(policy):
    sections = POLICIES.split("\n## ")
    assert [f"- **{policy}**" in section for section in sections].count(True) == 1


def test_every_search_option_has_its_command():
    used = {
        argument.removeprefix("search=")
        for arguments in commands(POLICIES)
        if arguments not in WITHOUT_CONFIG
        for job in jobs(arguments)
        for argument in job
        if argument.startswith("search=")
    }
    assert used == {path.stem for path in (PACKAGE / "conf" / "search").glob("*.yaml")}


@pytest.mark.parametrize("path", ALL_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text()):
        assert (path.parent / target).exists(), target


def pages_of(nav):
    """The pages that a navigation of mkdocs.yml names."""
    for entry in nav:
        for item in entry.values() if isinstance(entry, dict) else [entry]:
            yield from [item] if isinstance(item, str) else pages_of(item)


def test_site_shows_every_page():
    shown = list(pages_of(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]))
    assert len(shown) == len(set(shown))
    assert set(shown) >= {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}


def named_modules():
    """The modules that the rows of the architecture's tables link."""
    return re.findall(r"^\| \[`[\w.]+`\]\(\.\./([\w/.]+)\) \| .", ARCHITECTURE, re.MULTILINE)


def test_architecture_names_each_module_once():
    folders = ["experiments", "kernels", "llm_backend", "search", "tasks", "treeshare"]
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    modules = [
        path.relative_to(ROOT).as_posix()
        for path in paths
        if path.name not in ("__init__.py", "__main__.py")
        and not any(parent.is_symlink() for parent in path.parents)
    ]
    assert sorted(named_modules()) == sorted(modules)


def defined_in(path):
    """The names of a module's functions, classes and methods, as `Class.method`."""
    found = set()
    for node in ast.parse((ROOT / path).read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
            members = [] if not isinstance(node, ast.ClassDef) else node.body
            functions = ast.FunctionDef | ast.AsyncFunctionDef
            found |= {f"{node.name}.{m.name}" for m in members if isinstance(m, functions)}
    return found


FUNCTIONS = re.findall(r"\[`([\w/]+\.py):([\w.]+)`\]\(\.\./([\w/.]+)\)", ARCHITECTURE)


@pytest.mark.parametrize(("path", "name", "link"), FUNCTIONS)
def test_architecture_names_functions_that_exist(path, name, link):
    assert path == link
    assert name in defined_in(path)


def test_a_decode_step_reads_in_eight_hops():
    section = ARCHITECTURE.partition("## One decode step\n")[2].partition("\n## ")[0]
    hops = re.findall(r"^\d+\. (.*(?:\n   .*)*)", section, re.MULTILINE)
    assert 3 <= len(hops) <= 8
    assert all(re.search(r"\[`[\w/]+\.py:[\w.]+`\]\(", hop) for hop in hops)


def test_glossary_has_the_renamed_keys():
    old_names = PAGES["glossary.md"].partition("## Old names")[2]
    for old, new in RENAMED.items():
        if old.startswith(("search.", "budget.", "engine.max", "reward_model.", "evaluator.num")):
            assert re.search(rf"^\| `{old}` \| `{new}` \|", old_names, re.MULTILINE), old


@pytest.mark.parametrize("path", LOGS, ids=lambda path: path.name)
def test_lines_of_the_log_are_short(path):
    lines = path.read_text().splitlines()
    assert all(len(line) < 120 for line in lines if not line.startswith("|"))


def test_log_has_its_contents():
    log = (DOCS / "log" / "2026-11.md").read_text()
    contents = " ".join(log.partition("## Contents\n")[2].partition("\n## ")[0].split())
    for date in re.findall(r"^## (\d{4}-\d\d-\d\d)$", log, re.MULTILINE):
        assert f"[{date}](#{date})" in contents
    assert all(title in contents for title in re.findall(r"^### (.+)$", log, re.MULTILINE))


def test_figures_of_the_benchmarks_are_the_logs():
    logs = "".join(path.read_text() for path in LOGS)
    known = set(re.findall(r"\d[\d.,]*\d|\d", logs))
    for row in re.findall(r"^\|.*", PAGES["benchmarks.md"], re.MULTILINE):
        assert set(re.findall(r"\d[\d.,]*\d|\d", row)) <= known, row
    assert len(PAGES["benchmarks.md"].split()) < 1_500  # five minutes, at 300 words a minute
