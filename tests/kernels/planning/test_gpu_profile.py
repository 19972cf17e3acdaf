"""Profiles of devices, by the properties that PyTorch reports."""

from types import SimpleNamespace

import pytest
import torch

from treeshare.kernels.planning.gpu_profile import H100, H200, cuda_profile, gpu_profile

PROPERTIES = {
    "H100": ("NVIDIA H100 80GB HBM3", 9, 132, 227 << 10),
    "H200": ("NVIDIA H200", 9, 132, 227 << 10),
    "PCIe": ("NVIDIA H100 PCIe", 9, 114, 227 << 10),
    "A10": ("NVIDIA A10", 8, 72, 99 << 10),
}


@pytest.fixture
def device_of(monkeypatch):
    """Make device 0 have some properties."""

    def pretend(name, major, num_sms, shared_bytes):
        found = SimpleNamespace(
            name=name,
            major=major,
            multi_processor_count=num_sms,
            shared_memory_per_block=48 << 10,
            shared_memory_per_block_optin=shared_bytes,
        )
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: found)
        monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
        cuda_profile.cache_clear()
        return torch.device("cuda")

    yield pretend
    cuda_profile.cache_clear()


def test_a_cpu_plans_as_an_h100():
    assert gpu_profile("cpu") is H100


@pytest.mark.parametrize("key", PROPERTIES)
def test_sizes_are_those_of_the_device(key, device_of):
    name, major, num_sms, shared_bytes = PROPERTIES[key]
    gpu = gpu_profile(device_of(*PROPERTIES[key]))
    assert (gpu.name, gpu.compute_capability) == (name, major)
    assert (gpu.num_sms, gpu.shared_bytes) == (num_sms, shared_bytes)
    assert gpu.has_small_shared_memory == (key == "A10")
    assert gpu.tile_seconds_large == (H200 if key == "H200" else H100).tile_seconds_large
    assert gpu_profile("cuda:0") == gpu


def test_small_tiles_have_times_of_their_own():
    assert H100.tile_seconds(64) is H100.tile_seconds_large
    assert H100.tile_seconds(16) is H100.tile_seconds(32) is H100.tile_seconds_small
