"""Compiles kernels for an H100 without one. A process of its own: elsewhere they may be
interpreted, which Triton decides when it is imported.

Reads from standard input a JSON list of (kernel, signature, constants, divisible arguments,
options); writes one of what each takes.
"""

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource
from triton.experimental.gluon._runtime import GluonASTSource

from treeshare.kernels import deft, skinny_linear

PTXAS = get_ptxas(90).path


def compile_kernel(name, signature, constants, divisible, options):
    is_gluon = hasattr(skinny_linear, name)
    function = getattr(skinny_linear if is_gluon else deft, name)
    index = {argument: (i,) for i, argument in enumerate(function.arg_names)}
    source = (GluonASTSource if is_gluon else ASTSource)(
        fn=function,
        signature={argument: signature[argument] for argument in function.arg_names},
        constexprs={index[argument]: value for argument, value in constants.items()},
        attrs={index[argument]: [["tt.divisibility", 16]] for argument in divisible},
    )
    kernel = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    ptx = kernel.asm["ptx"]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "kernel.ptx"
        path.write_text(ptx)
        command = [PTXAS, "-v", "--gpu-name", "sm_90a", path, "-o", path.with_suffix(".cubin")]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {
        "registers": int(re.search(r"Used (\d+) registers", done.stderr)[1]),
        "spilled_bytes": sum(map(int, re.findall(r"(\d+) bytes spill", done.stderr))),
        "stack_bytes": int(re.search(r"(\d+) bytes stack frame", done.stderr)[1]),
        "shared_bytes": kernel.metadata.shared,
        "copies_under_way": [int(n) for n in re.findall(r"cp\.async\.wait_group\s+(\d+)", ptx)],
        "matrix_instructions": len(re.findall(r"wgmma\.mma_async|mma\.sync", ptx)),
        "is_serialized": "serializ" in done.stderr,
    }


if __name__ == "__main__":
    json.dump([compile_kernel(*wanted) for wanted in json.load(sys.stdin)], sys.stdout)
