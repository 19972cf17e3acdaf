"""The command chooses how PyTorch's threads wait before PyTorch is loaded."""

import subprocess
import sys

import pytest

from treeshare.experiments.runs import openmp
from treeshare.experiments.runs.openmp import count_busy_cores, set_wait_policy


@pytest.mark.parametrize(("busy", "spins"), [(0, "1000"), (0.2, "1000"), (1, "0"), (7, "0")])
def test_threads_spin_only_where_cores_are_free(busy, spins):
    environment = {}
    set_wait_policy(environment, lambda: busy)
    assert environment == {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": spins}


@pytest.mark.parametrize("given", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_the_users_choice_is_kept(given):
    environment = dict(given)
    set_wait_policy(environment, lambda: 0)
    assert environment == given


def test_a_busy_process_is_seen():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            assert any(count_busy_cores() >= 1 for _ in range(20))
        finally:
            process.kill()


def test_load_is_asked_where_threads_are_not_counted(monkeypatch):
    monkeypatch.setattr(openmp.Path, "read_text", lambda _: "cpu 1 2 3\n")
    monkeypatch.setattr(openmp.os, "getloadavg", lambda: (3.0, 2.0, 1.0))
    assert count_busy_cores() == 3.0
