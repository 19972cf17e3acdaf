"""The table of policies is complete and its costs hold."""

import inspect

import pytest
from places import ROOT

import treeshare.search
from treeshare.search import Policy
from treeshare.search.evaluators.prompted import Heuristic
from treeshare.search.expanders import Choose, Propose, Sample
from treeshare.search.policies.catalog import describe, markdown

EXPORTED = {
    name: exported
    for name in treeshare.search.__all__
    if inspect.isclass(exported := getattr(treeshare.search, name))
    and exported is not Policy
    and inspect.iscoroutinefunction(getattr(exported, "search", None))
}
ROWS = {row.policy: row for row in describe()}
SOURCES = "".join(path.read_text() for path in (ROOT / "search").rglob("*.py"))


def test_every_exported_policy_has_one_row():
    assert len(ROWS) == len(describe())
    assert set(EXPORTED) - set(ROWS) == set(), "add a row to search/policies/catalog.py"


def test_every_row_is_of_a_policy_of_the_package():
    assert [name for name in ROWS if f"\nclass {name}:" not in SOURCES] == []


@pytest.mark.parametrize(
    "expander", [Choose(), Propose(), Sample()], ids=["choose", "propose", "sample"]
)
@pytest.mark.parametrize("name", sorted(ROWS.keys() & EXPORTED))
def test_searches_send_no_more_than_the_row_says(name, expander, run, Digits):
    parameters = inspect.signature(EXPORTED[name]).parameters.values()
    if any(p.default is p.empty for p in parameters):
        pytest.skip("has parameters without a default")
    policy = EXPORTED[name]()
    outcome = run(policy, task=Digits(length=6, base=3), expander=expander, evaluator=Heuristic())
    if outcome.error is not None:
        pytest.skip(f"needs another task: {outcome.error}")
    requests = ROWS[name].requests
    assert outcome.calls >= 1
    assert requests is None or outcome.calls <= eval(requests, {"__builtins__": {}}, vars(policy))


def test_markdown_has_a_line_a_policy():
    lines = markdown().splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert {line.count("|") for line in lines} == {7}
