"""NVIDIA's compute-sanitizer on small runs of the kernels."""

import os
import shutil
import subprocess
import sys

import pytest
import torch
from places import ROOT

SCRIPT = ROOT / "tests/support" / "run_sanitized.py"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not shutil.which("compute-sanitizer"), reason="needs compute-sanitizer"),
]


@pytest.fixture
def report(tmp_path):
    """Run a tool on a kernel, `module`, whose PTX is changed, and return what it prints."""

    def run(tool, module, change):
        if module == "hopper_kernels" and torch.cuda.get_device_capability()[0] != 9:
            pytest.skip("needs a Hopper GPU")
        command = ["compute-sanitizer", "--tool", tool, "--kernel-name", "kns=partial"]
        command += ["--print-limit", "5", sys.executable, SCRIPT, module, change]
        # With more threads of PyTorch's, the tool takes several times as long.
        environment = os.environ | {"TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )
        text = done.stdout + done.stderr
        if "Device not supported" in text:
            pytest.skip("compute-sanitizer does not support this device")
        assert " plans\n" in text, text
        return text

    return run


@pytest.mark.parametrize("module", ["triton_kernels", "hopper_kernels"])
@pytest.mark.parametrize("tool", ["memcheck", "synccheck"])
def test_memory_and_barriers(report, tool, module):
    assert "ERROR SUMMARY: 0 errors" in report(tool, module, "whole")


@pytest.mark.parametrize(
    ("module", "change"), [("triton_kernels", "whole"), ("hopper_kernels", "weaker")]
)
def test_races(report, module, change):
    assert "RACECHECK SUMMARY: 0 hazards" in report("racecheck", module, change)


def test_a_race_is_found(report):
    text = report("racecheck", "triton_kernels", "wrong")
    assert "RACECHECK SUMMARY" in text and "SUMMARY: 0 hazards" not in text
