"""Compiles kernels without a GPU, for an H100 or the architecture of its argument (86 for sm_86).

This is a process of its own: elsewhere the kernels may be interpreted, which Triton decides when
it is imported.

Reads from standard input a JSON list of (kernel, signature, constants, divisible arguments,
options); writes a JSON list of the resources that each takes.
"""

import json
import re
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas, sm_arch_from_capability
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource, GluonJITFunction

from treeshare.kernels.attention import hopper_kernels, triton_kernels
from treeshare.kernels.layers import skinny_linear
from treeshare.kernels.planning import plan_buffers
from treeshare.kernels.sampling import advance, sample

MODULES = (triton_kernels, hopper_kernels, skinny_linear, plan_buffers, sample, advance)
BETWEEN = r"WARPGROUP\.DEPBAR\.LE gsb0, 0x1;(.*?)WARPGROUP\.DEPBAR\.LE gsb0, 0x0;"
SHARED_EVENTS = r"bar\.sync|\b(?:ld|st)\.shared|wgmma|(?<!async\.)mbarrier\.arrive\."
ARCH = int(sys.argv[1]) if len(sys.argv) > 1 else 90


def compile_kernel(name, signature, constants, divisible, options):
    function = next(getattr(module, name) for module in MODULES if hasattr(module, name))
    index = {argument: (i,) for i, argument in enumerate(function.arg_names)}
    is_gluon = isinstance(function, GluonJITFunction)
    source = (GluonASTSource if is_gluon else ASTSource)(
        fn=function,
        signature={argument: signature[argument] for argument in function.arg_names},
        constexprs={index[argument]: value for argument, value in constants.items()},
        attrs={index[argument]: [["tt.divisibility", 16]] for argument in divisible},
    )
    kernel = triton.compile(source, target=GPUTarget("cuda", ARCH, 32), options=options)
    ptx = kernel.asm["ptx"]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kernel.ptx"
        path.write_text(ptx)
        gpu, ptxas = sm_arch_from_capability(ARCH), get_ptxas(ARCH).path
        command = [ptxas, "-v", "--gpu-name", gpu, path, "-o", path.with_suffix(".cubin")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    sass = kernel.asm["sass"] if is_gluon else ""  # takes half a second
    parts = re.findall(BETWEEN, sass, re.DOTALL)
    events = re.findall(SHARED_EVENTS, ptx)
    return {
        "registers": int(re.search(r"Used (\d+) registers", done.stderr)[1]),
        "spilled_bytes": sum(map(int, re.findall(r"(\d+) bytes spill", done.stderr))),
        "stack_bytes": int(re.search(r"(\d+) bytes stack frame", done.stderr)[1]),
        "shared_bytes": kernel.metadata.shared,
        "copies_under_way": [int(n) for n in re.findall(r"cp\.async\.wait_group\s+(\d+)", ptx)],
        "matrix_instructions": len(re.findall(r"wgmma\.mma_async|mma\.sync", ptx)),
        "is_serialized": "serializ" in done.stderr,
        # The instruction before one thread arrives at a barrier for its warp group.
        "before_arrivals": [before for before, event in pairwise(events) if "arrive" in event],
        # Exponentials while one of two products is not finished.
        "during_a_product": [part.count("MUFU.EX2") for part in parts],
    }


if __name__ == "__main__":
    json.dump([compile_kernel(*wanted) for wanted in json.load(sys.stdin)], sys.stdout)
