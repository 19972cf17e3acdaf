"""The soak serves uneven requests, compares every token, and says what is wrong."""

import dataclasses
import math

import pytest
from few_programs import few_idle_programs
from hydra import compose, initialize_config_module

from treeshare.experiments.bench.decode.workloads import Filler
from treeshare.experiments.soak import main as soak
from treeshare.experiments.soak.ties import gap
from treeshare.experiments.soak.uneven_requests import Sizes, arrivals, uneven_requests
from treeshare.llm_backend.api import Failure, Generate, OutOfKVMemory, Sampling, Score
from treeshare.llm_backend.engines.tree import TreeEngine
from treeshare.llm_backend.model.random_models import load_network
from treeshare.llm_backend.sampling import sampler
from treeshare.llm_backend.sampling.sampler import uniforms

SMALL = [
    "model.name=tiny",
    "model.device=cpu",
    "model.fused=false",
    "requests.count=40",
    "requests.prompt=40",
    "requests.tokens=8",
    "requests.outstanding=9",
    "kv_tokens=2000",
    "max_num_seqs=12",
    "max_num_batched_tokens=48",
]


def soaked(directory, *overrides):
    with initialize_config_module("treeshare.conf", version_base="1.3"):
        return soak.run(compose("soak", [*SMALL, f"output_dir={directory}", *overrides]))


@pytest.fixture(scope="module")
def model():
    return load_network("tiny", "float32", "cpu")


def test_all_attentions_and_pools_give_the_same_tokens(tmp_path, monkeypatch):
    few_idle_programs(monkeypatch)
    rows = soaked(
        tmp_path, "attention=[torch,deft]", "requests.count=4", "requests.tokens=3", "kv_tokens=300"
    )
    assert [(row.attention, row.kv_tokens) for row in rows] == [
        ("torch", 300),
        ("deft", 300),
        ("deft", 30),
    ]
    assert all(row.is_sound and row.requests == 4 and row.failed == 0 for row in rows)
    assert rows[2].evicted > rows[1].evicted == 0
    assert rows[1].captures > 0 and rows[1].plan_enlargements < rows[1].captures
    assert (tmp_path / "results.md").read_text().count("| deft |") == 2


def test_a_wrong_token_a_lost_slot_and_a_failure_are_found(tmp_path, monkeypatch):
    """Each in an engine of its own, after the one that the others are compared with."""
    made = []

    class Troubled(soak.RecordedEngine):
        def __init__(self, *args):
            super().__init__(*args)
            made.append(self)

        def execute(self, requests):
            replies = super().execute(requests)
            if len(made) == 2 and self.generated:
                key = next(iter(self.generated))
                self.generated[key] = (int(self.generated[key][0] == 0), *self.generated[key][1:])
            if len(made) == 4:
                replies = {number: Failure(OutOfKVMemory("none")) for number in replies}
            return replies

        def reset_cache(self):
            super().reset_cache()
            if len(made) == 3:
                self.pool.slots.allocate(1)

    monkeypatch.setattr(soak, "RecordedEngine", Troubled)
    rows = soaked(tmp_path, "attention=[torch]", "shares=[1.0,1.0,0.9]")
    assert [row.is_sound for row in rows] == [True, False, False, False]
    assert rows[1].different == 1 and rows[1].largest_gap > 1e-3
    assert rows[2].lost_slots == 1 and rows[2].different == 0
    assert rows[3].failed == rows[3].requests


def test_memory_that_grows_without_a_capture_is_found():
    row = soak.Soaked(
        *("deft", 1, 1, 1, 1, 1, 1.0, 0, 0, 0.0, 0, 0, 0, 0),
        *([1, 10, 10, 10.5], [1, 2, 2, 2], 1, 1, 0, 0, 0, True),
    )
    assert row.is_sound
    grown = dataclasses.replace(row, device_mb=[1, 10, 10, 12])
    assert not grown.is_sound
    assert dataclasses.replace(grown, device_captures=[1, 2, 2, 3]).is_sound


def test_requests_are_uneven_and_reproducible(model):
    sizes = Sizes(300, 200, 50, 4, 8, 30)
    requests = uneven_requests(Filler(model), sizes, seed=1)
    assert requests == uneven_requests(Filler(model), sizes, seed=1)
    assert requests != uneven_requests(Filler(model), sizes, seed=2)
    lengths = [len("".join(request.prefix_segments)) for request in requests]
    assert min(lengths) < 5 and max(lengths) > 150
    generated = [request for request in requests if isinstance(request, Generate)]
    assert {request.n for request in generated} == {1, 2, 3, 4}
    assert {request.sampling.max_tokens for request in generated} > {1, 2, 3}
    assert sum(isinstance(request, Score) for request in requests) > 30
    outstanding = arrivals(sizes, seed=1)
    assert len({next(outstanding) for _ in range(500)}) > 5


def test_gap_of_greedy_tokens_is_that_of_their_logits(model):
    request = Generate(("abc",), 1, Sampling(3, 0.0))
    (reply,) = TreeEngine(model).execute({0: request}).values()
    best = model.tokenizer.encode_continuations("abc", [reply.completions[0].text])[1][0]
    other = (best[0] + 1, *best[1:])
    assert gap(model, request, 0, best, other) > 0
    assert gap(model, request, 0, best, best[:2]) == math.inf


@pytest.mark.parametrize("sampling", [Sampling(4, 1.0), Sampling(4, 1.0, top_p=0.8)])
def test_gap_of_sampled_tokens_is_a_shift_of_the_random_number(model, sampling, monkeypatch):
    """What a number a little greater draws is near; what a very different one draws is not."""
    request = Generate(("abc",), 1, sampling, seed=3)

    def drawn(shift):
        def shifted(*columns):
            return (uniforms(*columns) + shift).clamp(0, 1 - 2**-53)

        monkeypatch.setattr(sampler, "uniforms", shifted)
        engine = soak.RecordedEngine(model, 100, 4, 64)
        engine.execute({0: request})
        return engine.generated[0, 0]

    first = drawn(0.0)
    near = next(tokens for s in (1e-4, 1e-3, 1e-2) if (tokens := drawn(s))[0] != first[0])
    assert gap(model, request, 0, first, near) <= 0.01
    assert gap(model, request, 0, first, drawn(0.4)) > 0.01
