"""Tree attention on small trees, for compute-sanitizer. Prints how many plans were right.

Arguments: the module of the kernel, and how its PTX is changed:

- `whole`: not at all.
- `weaker`: barriers of a warp group are removed, and each thread arrives for itself where one
  arrived for its group behind such a barrier (`test_compile.py` checks that there is one). What has
  no race then has none in the whole kernel. This is for racecheck, which ignores a barrier of all
  threads where the warp groups have passed different numbers of barriers of their own.
- `wrong`: barriers of all threads are removed, and the results are not compared.
"""

import re
import sys
from itertools import product

import torch
from attention_check import assert_accurate, device_plan
from trees import SHAPES, VERIFICATION, make_tensors, make_tree
from triton import knobs

from treeshare.kernels.attention import tree_attention as launcher
from treeshare.kernels.planning.variants import VARIANTS

STAR = [(-1, 300, 0), *((0, 17 + 5 * i, 1) for i in range(20))]
PREFILL = [(-1, 65, 9), (0, 400, 100)]
CHANGES = {
    "whole": [],
    "weaker": [
        (r"\bbar\.sync\s+\d+, 128;", ""),
        (r"@%p\d+ (mbarrier\.arrive\.)", r"\1"),
        (r"(mbarrier\.init\S+ \[%r\d+\]), 1;", r"\1, 128;"),
    ],
    "wrong": [(r"\bbar\.sync\s+0;", "")],
}
_, MODULE, CHANGE = sys.argv


def change_ptx(backend=None, stages=None, *_):
    if stages is None:  # Triton after 3.6 asks for a part of its cache's key
        return CHANGE, CHANGE
    make_ptx = stages["ptx"]

    def changed(source, metadata):
        ptx = make_ptx(source, metadata)
        if "partial_attention" in ptx:
            for pattern, instead in CHANGES[CHANGE]:
                ptx, count = re.subn(pattern, instead, ptx)
                assert count, pattern
        return ptx

    stages["ptx"] = changed


def attend(nodes, variant, heads, width, dtype):
    tree = make_tree(nodes, seed=0)
    q, k, v = make_tensors(tree, 0, heads, width, dtype=dtype, device="cpu")
    plan = device_plan(tree, heads, variant, width, dtype)
    out = launcher.tree_attention(q.cuda(), k.cuda(), v.cuda(), plan, scale=0.09).cpu()
    if CHANGE != "wrong":  # compared on the CPU: racecheck breaks PyTorch's own kernels
        assert_accurate(out, q, k, v, tree.paths, scale=0.09)


torch.set_num_threads(1)  # compute-sanitizer has threads of its own
knobs.runtime.add_stages_inspection_hook = change_ptx
is_specialized = MODULE == "hopper_kernels"
launcher.use_warp_specialized = lambda q, k, v, plan: is_specialized and plan.rows == 64
if is_specialized:
    cases = product(
        (torch.float16, torch.bfloat16),
        ("deft_node", "deft_flatten"),
        (STAR, VERIFICATION, PREFILL, [(-1, 1, 1)], [(-1, 64, 30)]),
    )
else:
    cases = product(
        (torch.float32, torch.float16, torch.bfloat16),
        VARIANTS,
        (VERIFICATION, SHAPES["empty_leaf"]),
    )
count = 0
for dtype, variant, nodes in cases:
    attend(
        nodes, variant, (9, 3) if is_specialized else (4, 2), 128 if is_specialized else 64, dtype
    )
    count += 1
    if CHANGE == "wrong":
        break
print(f"{count} plans")
