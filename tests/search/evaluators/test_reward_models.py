"""Reward models as evaluators: what they are asked and what becomes of their scores."""

import math

import pytest
from drawn_tree import Drawn

from treeshare.llm_backend.api import Reward, Score
from treeshare.llm_backend.engines.mock import MockEngine
from treeshare.search.evaluators.composite import Combined, Memo
from treeshare.search.evaluators.reward_models import OutcomeReward, ProcessReward
from treeshare.tasks.task import Step

STEP_REWARD = {"1": 0.8, "2": 0.5, "3": 0.9}


class Chain:
    """Evaluates the root, then a child after the other, each below the one before."""

    def __init__(self, texts="123"):
        self.texts = texts

    async def search(self, ctx):
        node = ctx.root
        await ctx.evaluate([node])
        for text in self.texts:
            (node,) = ctx.add(node, [(Step(text, (*node.state, text)), None)])
            await ctx.evaluate([node])
        return node.path


def values(outcome):
    assert outcome.error is None
    return [node.value for node in outcome.ranked]


def process_model(prompt, text):
    """log p(text | prompt): of the tenth that is not elsewhere, good has the last step's reward."""
    reward = STEP_REWARD[prompt.removesuffix(" ки")[-1]]
    return math.log({" +": reward, " -": 1 - reward}[text] * 0.1)


def outcome_model(question, answer):
    return math.log(STEP_REWARD[answer[-1]] if answer else 0.25)


@pytest.mark.parametrize("by", ["tokens", "reward_model"])
@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ("min", [0.5, 0.8, 0.5, 0.5]),
        ("last", [0.5, 0.8, 0.5, 0.9]),
        ("prod", [0.5, 0.8, 0.4, 0.36]),
        ("mean", [0.5, 0.8, 0.65, 2.2 / 3]),
        ("sum", [0.5, 0.8, 1.3, 2.2]),
    ],
)
def test_process_reward_aggregates_the_steps_rewards(by, aggregate, expected, run):
    engine = MockEngine(score=process_model if by == "tokens" else outcome_model)
    outcome = run(Chain(), engine=engine, evaluator=ProcessReward(by, aggregate))
    assert values(outcome) == pytest.approx(expected)


@pytest.mark.parametrize("aggregate", ["min", "last"])
def test_each_step_is_scored_once_in_the_models_format(aggregate, run, recording):
    engine = recording(MockEngine(score=process_model))
    run(Chain(), engine=engine, evaluator=ProcessReward(aggregate=aggregate))
    assert ["".join(request.prefix_segments) for request in engine.requests] == [
        "p 1 ки",
        "p 1 ки\n2 ки",
        "p 1 ки\n2 ки\n3 ки",
    ]
    assert {request.continuations for request in engine.requests} == {(" +", " -")}


class Level:
    """Evaluates whole solutions in one call."""

    def __init__(self, *texts):
        self.texts = texts

    async def search(self, ctx):
        steps = [(Step(text, (ctx.problem.id, *text)), None) for text in self.texts]
        nodes = ctx.add(ctx.root, steps, dedupe=False)
        await ctx.evaluate(nodes)
        return nodes


def test_a_call_goes_out_together_and_shared_steps_are_scored_once(run, recording):
    engine = recording(MockEngine(score=process_model))
    outcome = run(Level("12", "13", "12"), engine=engine, evaluator=ProcessReward(aggregate="prod"))
    assert [len(batch) for batch in engine.batches] == [3]  # 1, 12 and 13
    assert values(outcome) == pytest.approx([0.4, 0.72, 0.4])


def test_own_format(run, recording):
    engine = recording()
    evaluator = ProcessReward(ask=" Good?", good=" yes", bad=" no", seen=" yes ", opening="\n")
    run(Level("12"), engine=engine, evaluator=evaluator)
    assert engine.requests == [
        Score(("p\n", "1 Good?"), (" yes", " no")),
        Score(("p\n", "1 Good? yes 2 Good?"), (" yes", " no")),
    ]


def test_outcome_reward_is_the_classifiers_score_of_each_solution(run, recording):
    engine = recording(MockEngine(score=outcome_model))
    outcome = run(Level("12", "3", "12"), engine=engine, evaluator=OutcomeReward())
    assert values(outcome) == pytest.approx([0.5, 0.9, 0.5])
    assert engine.batches == [[Reward("p", "1\n2"), Reward("p", "3")]]


def test_parts_of_a_combination_go_out_together(run, recording):
    engine = recording()
    both = Combined({"outcome": OutcomeReward(), "process": ProcessReward(aggregate="last")})
    run(Level("1", "2"), engine=engine, evaluator=both)
    assert [len(batch) for batch in engine.batches] == [4]


@pytest.mark.parametrize("evaluator", [OutcomeReward(), ProcessReward()])
def test_a_memo_refuses_what_depends_on_the_path(evaluator):
    with pytest.raises(ValueError, match="Memo cannot keep the values of"):
        Memo(evaluator)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ProcessReward("words"), "by='words' must be one of tokens, reward_model"),
        (lambda: ProcessReward(aggregate="max"), "aggregate='max' must be one of sum, last, min"),
    ],
    ids=["by", "aggregate"],
)
def test_parameters_are_checked(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("evaluator", [OutcomeReward(), ProcessReward()])
def test_the_task_must_show_solutions(evaluator, make_context):
    with pytest.raises(TypeError, match="that is HasSolution: task 'drawn' has no solution"):
        make_context(task=Drawn(), evaluator=evaluator)
