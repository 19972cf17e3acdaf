"""The kernels compiled for an H100 as they are launched: they fit, do not spill, and pipeline.

Some are compiled for a GPU with less shared memory as well. The launches are recorded from a tiny
run, so no setting is repeated here. What the run computes does not matter.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch
from attention_check import device_plan
from places import ROOT
from trees import make_tensors, make_tree
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor

from treeshare.kernels.attention import hopper_kernels, tree_attention, triton_kernels
from treeshare.kernels.layers import skinny_linear
from treeshare.kernels.planning import plan_buffers
from treeshare.kernels.planning.gpu_profile import H100
from treeshare.kernels.sampling import advance, sample

SHARED_BYTES = {90: 227 << 10, 86: 99 << 10}  # that a program may have, by architecture
SCRIPT = ROOT / "tests/support" / "compile_kernels.py"
TYPES = {
    torch.float16: "*fp16",
    torch.bfloat16: "*bf16",
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
    int: "i32",
    float: "fp32",
}
LAUNCH_OPTIONS = ("num_warps", "num_stages", "launch_pdl")
BY_ROWS = {64: "deft_flatten", 16: "sequence"}  # variants with tiles of that many
NODES = [(-1, 300, 0), *((0, 5, 1) for _ in range(33))]
ANY_ORDER = [(-1, 300, 1), (-1, 300, 1), (0, 5, 1)]
AN_SM_EACH = [(-1, 600, 0), *((0, 5, 1) for _ in range(4))]


class Recorder:
    """Takes the place of a kernel and keeps how it was launched, as Triton tells the compiler."""

    def __init__(self, name, launches, module=triton_kernels, *, pdl=True):
        self._names = list(getattr(module, name).arg_names)
        self._name, self._launches, self._pdl = name, launches, pdl

    def __getitem__(self, grid):
        return self._launch

    def _launch(self, *arguments, **keywords):
        options = {name: keywords.pop(name) for name in LAUNCH_OPTIONS if name in keywords}
        options.pop("launch_pdl", None)
        signature, constants, divisible = {}, {}, []
        for name, value in zip(self._names, arguments, strict=False):
            if isinstance(value, TensorDescriptor):
                element = TYPES[value.base.dtype][1:]
                signature[name] = f"tensordesc<{element}{value.block_shape},{value.layout!r}>"
                continue
            kind = value.dtype if isinstance(value, torch.Tensor) else type(value)
            signature[name] = TYPES[kind]
            if kind is int and value == 1:
                constants[name] = 1
            elif kind is not float and (kind is not int or value % 16 == 0):
                divisible.append(name)
        constants |= keywords | ({"PDL": self._pdl} if "PDL" in keywords else {})
        signature |= dict.fromkeys(constants, "constexpr")
        self._launches.append((self._name, signature, constants, divisible, options))


@pytest.fixture
def launches(monkeypatch):
    found = []
    monkeypatch.setattr(
        plan_buffers, "expand_kernel", Recorder("expand_kernel", found, plan_buffers)
    )
    for name in ("partial_attention_kernel", "reduce_partials_kernel", "write_kv_kernel"):
        monkeypatch.setattr(tree_attention, name, Recorder(name, found))
    return found


def compiled(launches, arch):
    """The resources that each of the launches takes."""
    done = subprocess.run(
        [sys.executable, SCRIPT, str(arch)],
        input=json.dumps(launches),
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "0"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def attend(width, dtype, variant, heads=(32, 8), nodes=NODES, gpu=H100, **options):
    tree = make_tree(nodes, seed=0)
    q, k, v = make_tensors(tree, 0, heads, width, dtype=dtype)
    plan = device_plan(tree, heads, variant, width, dtype, gpu=gpu)
    tree_attention.tree_attention(q, k, v, plan, scale=0.1, **options)
    return plan


def check(launches, record_property, arch=90):
    """Check that no launch of a test spills and all fit; returns their resources by kernel."""
    found = {}
    for (name, *_), taken in zip(launches, compiled(launches, arch), strict=True):
        print(name, *(f"{key}={value}" for key, value in taken.items()))
        record_property(name, taken)
        assert taken["spilled_bytes"] == taken["stack_bytes"] == 0
        assert taken["shared_bytes"] <= SHARED_BYTES[arch]
        assert set(taken["before_arrivals"]) <= {"bar.sync"}
        found[name] = taken
    return found


def check_pipeline(taken):
    """Check that the pipeliner loads the slots.

    If it does not, each wait is for all copies, or for all except one.
    """
    assert sum(copies >= 2 for copies in taken["copies_under_way"]) >= 2


@pytest.mark.parametrize("rows", [64, 16])
@pytest.mark.parametrize("width", [64, 96, 128, 256])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_half_precision(launches, record_property, dtype, width, rows):
    assert attend(width, dtype, BY_ROWS[rows]).rows == rows
    attention = check(launches, record_property)["partial_attention_kernel"]
    check_pipeline(attention)
    assert attention["matrix_instructions"] > 0 and not attention["is_serialized"]


@pytest.mark.parametrize("width", [64, 96, 128])
def test_one_program_an_sm(launches, record_property, width):
    attend(width, torch.float16, "deft_node", nodes=AN_SM_EACH)
    attention = check(launches, record_property)["partial_attention_kernel"]
    check_pipeline(attention)
    assert not attention["is_serialized"]
    if width == 128:
        assert 2 * attention["shared_bytes"] > SHARED_BYTES[90]


@pytest.mark.parametrize(
    ("width", "dtype", "heads", "rows"),
    [
        (128, torch.float16, (32, 8), 64),
        (256, torch.float16, (32, 8), 64),
        (128, torch.float32, (64, 1), 64),
        (256, torch.float32, (32, 1), 32),
    ],
    ids=["128 fp16", "256 fp16", "128 fp32", "256 fp32"],
)
def test_less_shared_memory(monkeypatch, record_property, width, dtype, heads, rows):
    found, name = [], "partial_attention_kernel"
    monkeypatch.setattr(tree_attention, name, Recorder(name, found, pdl=False))
    monkeypatch.setattr(tree_attention, "reduce_partials_kernel", MagicMock())
    gpu = replace(H100, shared_bytes=SHARED_BYTES[86])
    plan = attend(width, dtype, "deft_node", heads, AN_SM_EACH, gpu)
    assert plan.rows == rows and plan.has_long_items
    attention = check(found, record_property, 86)[name]
    check_pipeline(attention)
    assert not attention["is_serialized"]


@pytest.mark.parametrize(
    ("heads", "dtype", "nodes"),
    [
        ((32, 8), torch.float16, NODES),
        ((32, 8), torch.bfloat16, ANY_ORDER),
        ((32, 32), torch.bfloat16, NODES),
        ((9, 3), torch.float16, ANY_ORDER),
    ],
    ids=["32-8", "32-8 in any order", "32-32", "9-3 in any order"],
)
def test_warp_specialized(monkeypatch, record_property, heads, dtype, nodes):
    found = []
    name = "partial_attention_warp_specialized_kernel"
    monkeypatch.setattr(hopper_kernels, name, Recorder(name, found, hopper_kernels))
    tree = make_tree(nodes, seed=0)
    q, k, v = make_tensors(tree, 0, heads, 128, dtype=dtype)
    plan = device_plan(tree, heads, "deft_flatten", 128, dtype)
    hopper_kernels.partial_attention_warp_specialized(q, k, v, q, plan, 0.1)
    taken = check(found, record_property)[name]
    assert plan.rows == 64 and plan.is_ordered == (nodes is NODES)
    assert taken["matrix_instructions"] > 0 and not taken["is_serialized"]
    assert taken["before_arrivals"]
    # Four loops, with 32 weights of a thread and the factors of its two rows in each. If the
    # assembler moved them behind the wait, the kernel would be right and slow.
    assert taken["during_a_product"] == [34] * 4


@pytest.mark.parametrize("width", [64, 96, 128, 256])
def test_single_precision(launches, record_property, width):
    attend(width, torch.float32, "deft")
    check_pipeline(check(launches, record_property)["partial_attention_kernel"])


@pytest.mark.parametrize("rows", [64, 16])
@pytest.mark.parametrize("width", [128, 256])
def test_options_and_queries_in_any_order(launches, record_property, width, rows):
    options = {"sliding_window": 4096, "softcap": 50.0, "sinks": torch.zeros(32)}
    plan = attend(width, torch.float16, BY_ROWS[rows], nodes=ANY_ORDER, **options)
    assert not plan.is_ordered
    attention = check(launches, record_property)["partial_attention_kernel"]
    check_pipeline(attention)
    assert not attention["is_serialized"]


@pytest.mark.parametrize(("width", "together"), [(64, 8), (128, 8), (256, 4)])
def test_reduction_of_many_queries(launches, record_property, width, together):
    attend(
        width, torch.float16, "deft_node", nodes=[(-1, 300, 0), *((0, 5, 1) for _ in range(200))]
    )
    reductions = [launch for launch in launches if launch[0] == "reduce_partials_kernel"]
    assert [constants["BH"] for _, _, constants, *_ in reductions] == [together]
    check(reductions, record_property)


@pytest.mark.parametrize("heads", [(14, 2), (64, 1)], ids=["14-2", "64-1"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["fp16", "fp32"])
def test_odd_and_large_groups(launches, record_property, dtype, heads):
    attend(128, dtype, "deft", heads)
    check_pipeline(check(launches, record_property)["partial_attention_kernel"])


def test_tree_mask(launches, record_property):
    attend(128, torch.float16, "tree_mask")
    check(launches, record_property)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32], ids=["fp16", "fp32"])
def test_write_kv(launches, record_property, dtype):
    for heads, width, value_width in ((8, 128, 128), (32, 256, 256), (3, 80, 64)):
        k, v = (torch.zeros(4, heads, columns, dtype=dtype) for columns in (width, value_width))
        tree_attention.write_kv(k, v, k, v, torch.arange(4))
    check(launches, record_property)


@pytest.mark.parametrize(
    ("columns", "halves", "rows", "dtype"),
    [
        (4096, 1, 64, torch.bfloat16),
        (6144, 1, 1, torch.float16),
        (128256, 1, 64, torch.bfloat16),
        (14336, 2, 64, torch.bfloat16),
        (18944, 2, 128, torch.bfloat16),
    ],
)
def test_skinny_linear(monkeypatch, record_property, columns, halves, rows, dtype):
    found = []
    recorder = Recorder("skinny_linear_kernel", found, skinny_linear)
    monkeypatch.setattr(skinny_linear, "skinny_linear_kernel", recorder)
    x, weight = torch.empty(rows, 256, dtype=dtype), torch.empty(halves * columns, 256, dtype=dtype)
    dealt = skinny_linear.shares(columns, halves, H100)
    skinny_linear.launch(x, weight, dealt, halves, H100)
    taken = check(found, record_property)["skinny_linear_kernel"]
    assert taken["matrix_instructions"] >= 8 * halves and not taken["is_serialized"]


@pytest.mark.parametrize("num_tokens", [50_257, 262_144])
@pytest.mark.parametrize("is_filtered", [False, True], ids=["plain", "filtered"])
def test_sampling(monkeypatch, record_property, is_filtered, num_tokens):
    found = []
    for name in ("reduce_blocks_kernel", "draw_kernel"):
        monkeypatch.setattr(sample, name, Recorder(name, found, sample))
    monkeypatch.setattr(sample, "_MANY_PROGRAMS", 1)  # several tiles a program
    logits = torch.empty(2, num_tokens, dtype=torch.bfloat16)
    column, temperature = torch.zeros(2, dtype=torch.int64), torch.ones(2)
    scores = logits.float() if is_filtered else None
    sample.sample_rows(logits, scores, temperature, (column, column), column)
    if not is_filtered:
        sample.sample_rows(logits.float(), None, temperature, torch.zeros(2, dtype=torch.float64))
    check(found, record_property)


def test_advance(monkeypatch, record_property):
    found = []
    monkeypatch.setattr(advance, "advance_kernel", Recorder("advance_kernel", found, advance))
    for num_ends in (1, 3):
        column = torch.zeros(64, dtype=torch.int64)
        advance.advance(column.expand(5, -1), column, column, column[:num_ends])
    check(found, record_property)
