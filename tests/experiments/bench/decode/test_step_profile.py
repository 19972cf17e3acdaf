"""Kernels of a decode step by kind, and the clock that stands while the profiler looks on."""

from types import SimpleNamespace

import pytest
from torch.autograd import DeviceType

from treeshare.experiments.bench.decode import step_profile
from treeshare.experiments.bench.decode.step_profile import Kernel, StepBudget, Watch, split

LAYER = [
    ("add_norm_kernel", 1.0),
    ("sm90_xmma_gemm_bf16_qkv", 10.0),
    ("rotate_and_write_kernel", 1.0),
    ("partial_attention_kernel", 5.0),
    ("reduce_partials_kernel", 2.0),
    ("nvjet_tst_192x8", 20.0),
]
STEP = [
    ("vectorized_elementwise_kernel", 0.5),
    *LAYER,
    *LAYER,
    ("cutlass_vocabulary_gemm", 30.0),
    ("triton_red_fused_exp_sum", 3.0),
    ("Memcpy DtoD", 0.25),
]


def one_after_the_other(steps, gap=0.0):
    kernels, now = [], 100.0
    for name, seconds in steps:
        kernels.append(Kernel(name, now, seconds))
        now += seconds + gap
    return kernels


def test_a_steps_kernels_by_kind():
    # What comes before the first product belongs to the sampling of the step before.
    budget = split(one_after_the_other(STEP * 3, gap=0.1), num_layers=2)
    assert budget.attention == pytest.approx(14)
    assert budget.matmul == pytest.approx(90)
    assert budget.sampling == pytest.approx(3.25 + (2 / 3) * 1.5)
    assert budget.other == pytest.approx(3 + (1 / 3) * 1.5)
    assert sum(budget) == pytest.approx(sum(seconds for _, seconds in STEP))


def test_order_of_the_list_does_not_matter():
    kernels = one_after_the_other(STEP * 2)
    assert split(kernels[::-1], 2) == split(kernels, 2)


def test_a_kernel_that_waits_for_another_counts_from_its_end():
    kernels = [
        Kernel("gemm", 0.0, 10.0),
        Kernel("partial_attention_kernel", 2.0, 11.0),  # launched early: works from 10 to 13
        Kernel("reduce_partials_kernel", 3.0, 8.0),  # ends before the one ahead
        Kernel("gemm", 20.0, 1.0),
    ]
    assert split(kernels, num_layers=1) == StepBudget(3.0, 11.0, 0.0, 0.0)


def test_no_attention_no_budget():
    assert split([Kernel("gemm", 0.0, 1.0)], num_layers=2) is None
    assert split([], num_layers=2) is None


@pytest.fixture
def clock(monkeypatch):
    """A clock to be set by hand."""

    class Clock:
        now = 0.0

        def perf_counter(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(step_profile, "time", clock)
    return clock


class FakeProfiler:
    """Costs a second to begin and two to read; sees one kernel a look."""

    clock = None
    seen = ()

    def __init__(self, activities):
        pass

    def start(self):
        self.clock.now += 1

    def stop(self):
        self.clock.now += 2

    def events(self):
        return self.seen


@pytest.fixture
def profiler(clock, monkeypatch):
    monkeypatch.setattr(step_profile, "profile", FakeProfiler)
    monkeypatch.setattr(FakeProfiler, "clock", clock)


def steps(watch, clock, count, seconds=0.5):
    for _ in range(count):
        clock.now += seconds
        watch.forward(is_decode=True, num_entries=10)


def prefill(watch, clock, seconds):
    clock.now += seconds
    watch.forward(is_decode=False, num_entries=999)


def test_a_step_after_a_prefill_is_not_the_mean_step(clock):
    watch = Watch()
    watch.start()
    prefill(watch, clock, 3.0)
    steps(watch, clock, 1, seconds=7.0)  # waits for the prefill
    steps(watch, clock, 4)
    watch.stop()
    assert (watch.steps, watch.kv_entries) == (5, 50)
    assert watch.step_seconds == 0.5
    assert watch.seconds == 3 + 7 + 4 * 0.5


def test_time_under_the_profiler_counts_as_so_many_mean_steps(clock, profiler):
    watch = Watch([3], span=2)
    watch.start()
    steps(watch, clock, 8)
    watch.stop()
    assert clock.now == 8 * 0.5 + 3
    assert watch.step_seconds == 0.5
    assert watch.seconds == pytest.approx(8 * 0.5)


def test_several_looks_follow_one_another(clock, profiler, monkeypatch):
    gemm, other = SimpleNamespace(start=0.0, elapsed_us=lambda: 4e6), SimpleNamespace()
    other.start, other.elapsed_us = 5e6, lambda: 2e6
    monkeypatch.setattr(
        FakeProfiler,
        "seen",
        [
            SimpleNamespace(name="gemm", time_range=gemm, device_type=DeviceType.CUDA),
            SimpleNamespace(name="host", time_range=gemm, device_type=DeviceType.CPU),
            SimpleNamespace(name="other", time_range=other, device_type=DeviceType.CUDA),
        ],
    )
    watch = Watch([1, 4], span=1)
    watch.start()
    steps(watch, clock, 6)
    watch.stop()
    assert watch.kernels == [
        Kernel("gemm", 0.0, 4.0), Kernel("other", 5.0, 2.0),
        Kernel("gemm", 7.0, 4.0), Kernel("other", 12.0, 2.0),
    ]  # fmt: skip


def test_a_prefill_ends_the_look_and_another_is_taken(clock, profiler, monkeypatch):
    begun = []
    monkeypatch.setattr(FakeProfiler, "start", lambda self: begun.append(clock.now))
    watch = Watch([2], span=3)
    watch.start()
    steps(watch, clock, 3)
    prefill(watch, clock, 1.0)
    steps(watch, clock, 6)
    watch.stop()
    assert begun == [1.0, 5.5]  # after step 2; and after step 5, two later than the prefill
    assert watch.seconds == pytest.approx(9 * 0.5 + 1)
