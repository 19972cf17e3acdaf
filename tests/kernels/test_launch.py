"""Launching without CUDA; graphs and early launches themselves are tested in test_gpu.py."""

import torch

from treeshare.kernels.launch import captured, pdl


def test_without_cuda_the_work_itself_is_run():
    calls = []

    def run():
        calls.append(1)

    launch = captured(run, torch.device("cpu"))
    assert launch is run and not calls


def test_without_cuda_nothing_is_launched_early():
    assert pdl(torch.zeros(1)) == {"PDL": False}
