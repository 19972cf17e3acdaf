"""A process reward model by tokens, scored in the batch of the search that it guides."""

import math

import pytest
from babble import Babble
from dense_check import Dense, DenseCheck

from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.search import Context, ProcessReward, Sample, Scheduler, ToTBFS


def test_values_are_those_of_dense_forwards(llama):
    task, dense = Babble(1.0), Dense(llama)
    evaluator = ProcessReward(
        aggregate="prod", ask="?", good=" yes", bad=" no", seen="; ", opening=": "
    )
    policy = ToTBFS(breadth=2, num_samples=3)
    searches = [(policy, Context(task, p, Sample(), evaluator)) for p in task.problems()[:3]]
    engine = TreeEngine(DenseCheck(llama, dense))
    outcomes = list(Scheduler(engine).run(searches))
    nodes = [node for outcome in outcomes for node in outcome.graph if node.value is not None]
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert len(nodes) > 20
    for node in nodes:
        question, *steps = node.state
        expected, prompt = 1.0, f"{question}: "
        for step in steps:
            prompt += f"{step}?"
            good, bad = (
                dense.logprob(
                    llama.tokenizer.encode(prompt),
                    llama.tokenizer.encode_continuations(prompt, [verdict])[1][0],
                )
                for verdict in (" yes", " no")
            )
            expected *= 1 / (1 + math.exp(bad - good))
            prompt += "; "
        assert node.value == pytest.approx(expected, rel=1e-3)
