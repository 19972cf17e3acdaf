"""What parts say about themselves is read in one place, and checked before a search begins."""

import importlib
import inspect
import pkgutil
from dataclasses import fields

import pytest

import treeshare.search
from treeshare.llm_backend.api import EngineCapabilities
from treeshare.search.budget import Budget
from treeshare.search.evaluators.composite import Combined, Memo
from treeshare.search.evaluators.prompted import (
    Heuristic,
    LogProb,
    Oracle,
    SelfEvaluation,
    ValuePrompt,
    Vote,
)
from treeshare.search.evaluators.reward_models import OutcomeReward, ProcessReward
from treeshare.search.expanders import Choose, Propose, Sample
from treeshare.search.parts import (
    Evaluator,
    Expander,
    Policy,
    Traits,
    check_engine,
    check_needs,
    check_parts,
    traits_of,
    with_parts,
)
from treeshare.search.policies.astar import AStar
from treeshare.search.policies.simulation.lats import LATS
from treeshare.search.policies.tot import ToTBFS
from treeshare.tasks.task import HasMoves, HasReflections

ALL = {"scores": True, "seeds": True, "logprobs": True, "rewards": True}


class Plain:
    """A user's class: it inherits from nothing and has none of the attributes."""

    def __init__(self, parts=3):
        self.parts = parts  # a parameter that only shares its name with `Traits.parts`

    async def search(self, ctx):
        return [ctx.root]


class Mine:
    """A user's evaluator that has one of the attributes."""

    needs = HasMoves

    async def evaluate(self, ctx, nodes):
        return [0.0 for _ in nodes]


def test_a_plain_class_has_the_default_traits():
    assert traits_of(Plain()) == traits_of(object()) == Traits()
    assert list(with_parts(plain := Plain())) == [plain]
    assert traits_of(Mine()) == Traits(needs=HasMoves)


def test_a_plain_policy_searches(run):
    outcome = run(Plain(), expander=Choose(), evaluator=Mine())
    assert outcome.error is None
    assert outcome.ranked == [outcome.graph.root]


def test_traits_may_depend_on_parameters():
    assert [traits_of(ValuePrompt(mode=mode)).needs_scores for mode in ("sample", "score")] == [
        False,
        True,
    ]
    assert traits_of(ValuePrompt(mode="score")).fixed_by == "value"
    assert traits_of(ProcessReward()).needs_scores
    assert not traits_of(ProcessReward(by="reward_model")).needs_scores
    assert traits_of(ProcessReward(by="reward_model")).needs_reward_model
    assert [traits_of(AStar(cost=cost)).needs_logprobs for cost in ("step", "logprob")] == [
        False,
        True,
    ]


def test_an_oracle_and_a_memo_are_found_at_every_depth():
    memo = Memo(Heuristic())
    deep = Combined({"a": Combined({"b": memo, "c": Oracle(None)}), "d": Vote()})
    assert [type(part).__name__ for part in with_parts(deep)] == [
        *("Combined", "Combined", "Memo", "Heuristic", "Oracle", "Vote"),
    ]
    assert traits_of(deep).is_oracle and not traits_of(memo).is_oracle
    assert traits_of(deep).memo_hits == 0


def parts_of_the_package():
    """Every class of search/ that has the method of a part."""
    for found in pkgutil.walk_packages(treeshare.search.__path__, "treeshare.search."):
        module = importlib.import_module(found.name)
        for cls in vars(module).values():
            if (
                inspect.isclass(cls)
                and cls.__module__ == found.name
                and cls not in (Expander, Evaluator, Policy)
                and any(hasattr(cls, method) for method in ("search", "expand", "evaluate"))
                and not cls.__name__.startswith("_")
                and hasattr(cls, "__dataclass_fields__")
            ):
                yield cls


def test_no_trait_of_the_package_is_misspelt():
    """Every class attribute of a part is a trait, or a fact of the catalog."""
    known = {field.name for field in fields(Traits)}
    known |= {"paper", "asks", "evaluates", "together", "max_requests"}
    found = list(parts_of_the_package())
    assert len(found) > 30
    for cls in found:
        annotated = {name for name, kind in vars(cls)["__annotations__"].items() if "Class" in kind}
        assert annotated <= known, cls


def test_a_task_that_lacks_what_a_part_needs_is_refused(Digits):
    class Bare:
        name = "bare"

    with pytest.raises(TypeError, match=r"^LATS needs a task that is HasReflections: task 'bare'"):
        check_needs(LATS(), Bare())
    assert traits_of(LATS()).needs is HasReflections
    with pytest.raises(TypeError, match=r"^Choose needs a task that is HasMoves: .* has no moves$"):
        check_parts((ToTBFS(), Choose(), Vote()), Bare(), Budget())
    wrong = Mine()
    wrong.needs = "HasMoves"
    with pytest.raises(TypeError, match=r"^Mine.needs is 'HasMoves'; it must be a protocol of"):
        check_needs(wrong, Digits())
    check_parts((LATS(), Choose(), Combined({"a": Memo(Heuristic())})), Digits(), Budget())


def test_a_limit_that_a_memo_makes_meaningless_is_refused(Digits):
    parts = (ToTBFS(), Choose(), Combined({"a": Memo(Heuristic())}))
    for limits in ({"requests": 3}, {"tokens": 3}, {"money": 1.0, "price_prompt": 1.0}):
        with pytest.raises(ValueError, match=rf"^budget.{next(iter(limits))} cannot be used with"):
            check_parts(parts, Digits(), Budget(**limits))
    check_parts(parts, Digits(), Budget(nodes=3, depth=3, seconds=3))


@pytest.mark.parametrize(
    ("parts", "lacks", "message"),
    [
        ([Choose(), Vote()], "scores", r"^Choose asks for scores .*`scores`: .*expander=propose"),
        ([Propose(), SelfEvaluation()], "scores", "^SelfEvaluation asks .*evaluator=value.*tree$"),
        ([Propose(), ValuePrompt(mode="score")], "scores", "^ValuePrompt asks for scores"),
        ([Propose(), ProcessReward()], "scores", "^ProcessReward asks for scores"),
        (
            [Sample(), Combined({"a": SelfEvaluation()})],
            "scores",
            "^SelfEvaluation asks for scores",
        ),
        ([Sample(), Memo(SelfEvaluation())], "scores", "^SelfEvaluation asks for scores"),
        (
            [Sample(), OutcomeReward()],
            "rewards",
            "^OutcomeReward asks .*: add reward_model",
        ),
        (
            [Sample(), ProcessReward(by="reward_model")],
            "rewards",
            "^ProcessReward asks .*`rewards",
        ),
        ([Sample(), LogProb()], "logprobs", "^LogProb reads the log-probabilities .*`logprobs`"),
        ([AStar(cost="logprob"), Sample(), Vote()], "logprobs", "^AStar reads the log-prob"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_an_engine_that_cannot_serve_a_part_is_refused(parts, lacks, message):
    with pytest.raises(ValueError, match=message) as raised:
        check_engine(parts, EngineCapabilities(**(ALL | {lacks: False})))
    assert "\n" not in str(raised.value)
    check_engine(parts, EngineCapabilities(**ALL))


def test_parts_that_only_sample_go_with_every_engine():
    poor = EngineCapabilities(scores=False, seeds=False, logprobs=False)
    check_engine([AStar(), Propose(), Combined({"a": ValuePrompt(), "b": Heuristic()})], poor)


def test_scored_steps_have_log_probabilities_that_no_sample_needs():
    engine = EngineCapabilities(scores=True, seeds=True, logprobs=False)
    check_engine([AStar(cost="logprob"), Choose(), LogProb()], engine)
