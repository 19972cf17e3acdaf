"""The pages of docs/ agree with the code: examples run, commands compose, tables are the code's."""

import json
import re
import shlex
from itertools import product

import pytest
from hydra import compose, initialize_config_module
from hydra.core.override_parser.overrides_parser import OverridesParser
from page_examples import example, run_example
from places import ROOT

from treeshare.experiments.runs.config import keep_given_keys
from treeshare.search.policies.catalog import describe, markdown

DOCS = ROOT / "docs"
PAGES = {path.name: path.read_text() for path in sorted(DOCS.glob("*.md"))}
PAGES["README.md"] = (ROOT / "README.md").read_text()
POLICIES = PAGES["policies.md"]
EXAMPLES = {
    "walks.py": "write_a_policy.md",
    "lookahead.py": "write_a_policy.md",
    "my_evaluators.py": "write_an_evaluator.md",
}
WITHOUT_CONFIG = {("--help",)}  # arguments that hydra answers before it composes


def run(name, tmp_path, *arguments):
    return run_example(PAGES[EXAMPLES[name]], name, tmp_path, *arguments)


def lines_of(tmp_path, name):
    (path,) = tmp_path.glob(f"outputs/**/{name}")
    return [json.loads(line) for line in path.read_text().splitlines()]


def commands(page):
    """The arguments of every `treeshare ...` of a page, in blocks of code and in its lines."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    prose = re.sub(r"^```.*?^```", "", page, flags=re.DOTALL | re.MULTILINE)
    found = re.findall(r"^treeshare (.+)", "\n".join(blocks), re.MULTILINE)
    found += re.findall(r"`treeshare ([^`]+)`", prose)
    return [tuple(shlex.split(text, comments=True)) for text in found]


def jobs(arguments):
    """The overrides of each job of a command; `-m` has several."""
    if arguments[0] != "-m":
        return [list(arguments)]
    choices = []
    for override in OverridesParser.create().parse_overrides(list(arguments[1:])):
        values = override.sweep_string_iterator() if override.is_sweep_override() else [None]
        key = override.get_key_element()
        choices.append([override.input_line if v is None else f"{key}={v}" for v in values])
    return [list(job) for job in product(*choices)]


COMMANDS = [
    pytest.param(arguments, id=f"{name}: {' '.join(arguments)}")
    for name, page in PAGES.items()
    for arguments in dict.fromkeys(commands(page))
    if arguments not in WITHOUT_CONFIG
]


def test_the_pages_for_users_have_commands():
    with_commands = {name for name, page in PAGES.items() if commands(page)}
    assert with_commands == PAGES.keys() - {"benchmarks.md", "models.md", "runs.md", "viewer.md"}


@pytest.mark.parametrize("arguments", COMMANDS)
def test_command_composes(arguments):
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        for overrides in jobs(arguments):
            keep_given_keys(compose("config", overrides), overrides)


def test_every_code_to_save_is_run():
    to_save = re.findall(r"Save this as `([\w.]+)`", "".join(PAGES[name] for name in PAGES))
    assert sorted(to_save) == sorted([*EXAMPLES, "my_policies.py", "my_tasks.py"])


@pytest.mark.parametrize("name", ["walks.py", "lookahead.py"])
def test_policy_example_runs(name, tmp_path):
    done = run(name, tmp_path, "task.limit=3")
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
def test_policy_example_ended_by_the_budget_has_a_ranking(name, calls, num_ranked, tmp_path):
    done = run(name, tmp_path, "task.limit=2", f"budget.calls={calls}")
    assert done.returncode == 0, done.stderr
    for row in lines_of(tmp_path, "results.jsonl"):
        assert row["budget_hit"] == "calls"
        assert len(row["answers"]) == num_ranked


def test_the_example_without_gather_has_none_and_the_other_has():
    page = PAGES["write_a_policy.md"]
    assert "gather" not in example(page, "walks.py")[0]
    assert "ctx.gather(" in example(page, "lookahead.py")[0]


def test_lookahead_scores_a_level_in_two_rounds(tmp_path):
    done = run("lookahead.py", tmp_path, "task.limit=1")
    assert done.returncode == 0, done.stderr
    (row,) = lines_of(tmp_path, "results.jsonl")
    # The root; then the children and values of levels 1 and 2. Level 3 is terminal and has values.
    assert row["rounds"] == 1 + 2 + 2


def test_evaluator_example_runs(tmp_path):
    done = run("my_evaluators.py", tmp_path, "task.limit=2")
    assert done.returncode == 0, done.stderr
    rows = lines_of(tmp_path, "results.jsonl")
    assert [row["parse_failures"] for row in rows] == [0, 0]
    for path in tmp_path.glob("outputs/**/trees/*.json"):
        nodes = json.loads(path.read_text())["nodes"]
        values = [node["value"] for node in nodes if node["id"] != 0]
        assert len(values) > 1
        assert all(0 <= value <= 1 for value in values)
    assert [row["rounds"] for row in rows] == [6, 6]  # expand and evaluate, three levels


def test_evaluator_example_counts_what_cannot_be_read(tmp_path):
    done = run("my_evaluators.py", tmp_path, "task.limit=1", "engine.replies=[sure,hm]")
    assert done.returncode == 0, done.stderr
    (row,) = lines_of(tmp_path, "results.jsonl")
    assert 0 < row["parse_failures"] < row["calls"] / 2


def test_evaluator_example_takes_its_parameter(tmp_path):
    done = run("my_evaluators.py", tmp_path, "task.limit=1", "++evaluator.weight=0.3")
    assert done.returncode == 0, done.stderr


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
    assert used == {path.stem for path in (ROOT / "conf" / "search").glob("*.yaml")}


@pytest.mark.parametrize("name", sorted(PAGES))
def test_links_between_pages_lead_somewhere(name):
    folder = ROOT if name == "README.md" else DOCS
    for target in re.findall(r"\]\(([^)#:]+)\)", PAGES[name]):
        assert (folder / target).exists(), target


def test_readme_links_the_pages():
    assert all(f"](docs/{name})" in PAGES["README.md"] for name in PAGES if name != "README.md")
