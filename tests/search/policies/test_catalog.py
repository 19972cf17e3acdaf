"""The catalog is complete, and no part sends more requests than its class says."""

import inspect

import pytest
from any_of import AnyOf
from places import ROOT

import treeshare.search
from treeshare.search import Evaluator, Expander, Oracle, Policy
from treeshare.search.context import DEFAULT_DEPTH
from treeshare.search.evaluators.prompted import Heuristic
from treeshare.search.expanders import Choose, Propose, Sample
from treeshare.search.policies.catalog import (
    EVALUATORS,
    EXPANDERS,
    POLICIES,
    describe,
    markdown,
    parts_markdown,
)
from treeshare.search.policies.tot import ToTBFS

ROWS = {row.policy: row for row in describe()}
ARGUMENTS = {"AskTell": [AnyOf()]}
MADE_OF_OTHERS = {"Combined", "Memo"}  # what they send is the sum of what those send
PAGE = (ROOT / "docs" / "policies.md").read_text()


def exported(method):
    """The classes that `treeshare.search` exports and that have the method, by name."""
    classes = {name: getattr(treeshare.search, name) for name in treeshare.search.__all__}
    return {
        name: cls
        for name, cls in classes.items()
        if inspect.isclass(cls)
        and cls not in (Policy, Expander, Evaluator)
        and inspect.iscoroutinefunction(getattr(cls, method, None))
        and name != "Context"
    }


def bound(part, **names):
    """The number that the expression `max_requests` stands for."""
    parameters = {name: getattr(part, name) for name in getattr(part, "__dataclass_fields__", ())}
    if parameters.get("depth", 1) is None:
        parameters["depth"] = DEFAULT_DEPTH
    return eval(part.max_requests, {"__builtins__": {}}, parameters | names)


def test_the_catalog_holds_every_class_that_is_exported():
    assert {cls.__name__: cls for cls in POLICIES} == exported("search")
    assert {cls.__name__: cls for cls in EXPANDERS} == exported("expand")
    assert {cls.__name__ for cls in EVALUATORS} | MADE_OF_OTHERS == set(exported("evaluate"))


@pytest.mark.parametrize(
    "expander", [Choose(), Propose(), Sample()], ids=["choose", "propose", "sample"]
)
@pytest.mark.parametrize("policy", POLICIES, ids=lambda cls: cls.__name__)
def test_no_search_sends_more_than_its_policy_says(policy, expander, run, Digits):
    made = policy(*ARGUMENTS.get(policy.__name__, []))
    outcome = run(made, task=Digits(length=6, base=3), expander=expander, evaluator=Heuristic())
    assert outcome.error is None
    assert outcome.requests >= 1
    assert policy.max_requests is None or outcome.requests <= bound(made)


@pytest.mark.parametrize("evaluator", EVALUATORS, ids=lambda cls: cls.__name__)
def test_no_call_sends_more_than_its_evaluator_says(evaluator, run):
    made = evaluator(AlwaysPromising()) if evaluator is Oracle else evaluator()
    sent = []

    class Counted:
        async def evaluate(self, ctx, nodes):
            before = ctx.spent.requests
            values = await made.evaluate(ctx, nodes)
            depth = max(node.depth for node in nodes)
            sent.append((ctx.spent.requests - before, bound(made, nodes=len(nodes), depth=depth)))
            return values

    outcome = run(ToTBFS(breadth=3, num_samples=2), expander=Sample(), evaluator=Counted())
    assert outcome.error is None
    assert len(sent) > 1
    assert all(requests <= most for requests, most in sent)
    assert any(requests for requests, _ in sent) == (evaluator.max_requests != "0")


@pytest.mark.parametrize("expander", EXPANDERS, ids=lambda cls: cls.__name__)
def test_no_expansion_sends_more_than_its_expander_says(expander, run, recording):
    engine = recording()
    outcome = run(
        ToTBFS(num_samples=3, depth=1), expander=expander(), evaluator=Heuristic(), engine=engine
    )
    assert outcome.error is None and len(outcome.graph) > 1
    assert len(engine.requests) == bound(expander())


class AlwaysPromising:
    """A verifier."""

    def promise(self, problem, state):
        return 1.0


def test_tables_have_a_line_for_each_class():
    lines = markdown().splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert {line.count("|") for line in lines} == {7}
    assert len(parts_markdown().splitlines()) == 2 + len(EXPANDERS) + len(EVALUATORS)


def test_the_page_has_the_tables():
    assert markdown() in PAGE, "put policies.catalog.markdown() in docs/policies.md"
    assert parts_markdown() in PAGE, "put policies.catalog.parts_markdown() in docs/policies.md"
