"""An interpreter of Gluon kernels on NumPy, as far as `hopper_kernels.py` needs it.

Triton's interpreter runs Triton kernels only. Here warp groups are threads and barriers are real.
Copies happen in order on a thread of their own, matrix products when they are waited for; in each
program another group is slow. So a kernel that reads shared memory too early, or releases it too
soon, gives a wrong result, and one that waits for ever fails. Layouts have no effect.

It replaces private names of Triton and is written for the version that the project pins.
"""

import importlib.util
import random
import sys
import threading
import time
from queue import Queue
from types import ModuleType, SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
import triton.experimental.gluon

SECONDS = 20  # that nothing waits for
_local = threading.local()
_turn = threading.Condition()


class Tensor(np.ndarray):
    def to(self, dtype):
        return self.astype(dtype)


def tensor(values):
    return np.asarray(values).view(Tensor)


class Pointer:
    def __init__(self, memory, offset=0):
        self.memory, self.offset = memory, offset
        self.dtype = SimpleNamespace(element_ty=memory.dtype)

    def __add__(self, offset):
        return Pointer(self.memory, self.offset + offset)

    def __sub__(self, offset):
        return Pointer(self.memory, self.offset - offset)

    @property
    def shape(self):
        return np.shape(self.offset)


class Shared:
    """Shared memory, full of NaN."""

    def __init__(self, memory):
        self.memory, self.dtype = memory, memory.dtype

    def index(self, i):
        return Shared(self.memory[i])

    def permute(self, order):
        return Shared(self.memory.transpose(order))

    def store(self, values):
        assert values.shape == self.memory.shape
        self.memory[...] = values

    def load(self, layout):
        return tensor(self.memory.copy())


class Barrier:
    """Whose phase ends when `count` have arrived."""

    def __init__(self, number=1):
        self._all = [self] + [Barrier() for _ in range(number - 1)]
        self.count = self.missing = self.phases = 0

    def index(self, i):
        return self._all[i]

    def arrive(self, count=1):
        with _turn:
            assert 0 < count <= self.missing
            self.missing -= count
            if not self.missing:
                self.missing, self.phases = self.count, self.phases + 1
            _turn.notify_all()

    def wait(self, parity):
        with _turn:
            assert _turn.wait_for(lambda: self.phases % 2 != parity, SECONDS), "waits for ever"


def init(barrier, count):
    barrier.count = barrier.missing = count


def allocate_shared_memory(dtype, shape, layout):
    if dtype == np.int64:
        return Barrier(shape[0])
    return Shared(np.full(shape, np.nan, dtype))


def load(pointer, mask=True, other=0):
    mask = np.broadcast_to(mask, np.shape(pointer.offset))
    values = pointer.memory[np.where(mask, pointer.offset, 0)]
    return tensor(np.where(mask, values, other).astype(values.dtype)) if mask.ndim else int(values)


def store(pointer, values, mask):
    mask = np.broadcast_to(mask, values.shape)
    pointer.memory[np.broadcast_to(pointer.offset, values.shape)[mask]] = values[mask]


def async_load(shared, pointer, mask):
    def copy():
        shared.store(load(pointer, mask))

    _local.copies.put(copy)


def mbarrier_arrive(barrier, increment_count):
    assert not increment_count
    _local.copies.put(lambda: barrier.arrive(barrier.count))


def _dawdle(is_slow):
    if is_slow:
        time.sleep(random.random() * 1e-3)


def _copy_in_order(copies, is_slow):
    while (copy := copies.get()) is not None:
        _dawdle(is_slow)
        copy()


class Product:
    def __init__(self, a, b, acc, use_acc=True, *, is_async):
        assert is_async
        self._operands, self._sum = (a, b), acc if use_acc else 0
        self.value = None
        _local.products.append(self)

    def compute(self):
        a, b = (getattr(operand, "memory", operand) for operand in self._operands)
        self.value = tensor(a.astype(np.float32) @ b.astype(np.float32) + self._sum)


def warpgroup_mma_wait(num_pending, products):
    while len(_local.products) > num_pending:
        _dawdle(_local.is_slow)
        _local.products.pop(0).compute()
    return products[0].value


def warp_specialize(parts, num_warps, registers):
    program, failures, results = _local.program, [], {}

    def run(i, function, arguments):
        _local.program, _local.products, _local.copies = program, [], Queue()
        _local.is_slow = program % len(parts) == i
        engine = threading.Thread(target=_copy_in_order, args=[_local.copies, _local.is_slow])
        engine.start()
        try:
            with np.errstate(all="ignore"):
                results[i] = function(*arguments)
            assert not _local.products, "nothing waited for a product"
        except BaseException as error:
            failures.append(error)
        _local.copies.put(None)
        engine.join()

    threads = [threading.Thread(target=run, args=[i, *part]) for i, part in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return results[0]


def scalar_or(function):
    return lambda *values: tensor(out) if np.ndim(out := function(*values)) else out.item()


class Kernel:
    def __init__(self, function):
        self.function = function

    def __call__(self, *arguments):
        return self.function(*arguments)

    def __getitem__(self, grid):
        def launch(*arguments, num_warps, launch_pdl, **constants):
            for program in range(grid[0]):
                _local.program = program
                self.function(*map(_pointer, arguments), **constants)

        return launch


def _pointer(argument):
    if not isinstance(argument, torch.Tensor):
        return argument
    size = argument.untyped_storage().nbytes() // argument.itemsize - argument.storage_offset()
    return Pointer(argument.as_strided((size,), (1,)).numpy())


def _language():
    gl = ModuleType("triton.experimental.gluon.language")
    for name in ("BlockedLayout", "SliceLayout", "NVMMADistributedLayout", "DotOperandLayout"):
        setattr(gl, name, lambda *_: None)
    gl.NVMMASharedLayout = SimpleNamespace(get_default_for=lambda *_: None)
    gl.SwizzledSharedLayout = lambda *_: None
    gl.constexpr = None
    for name in ("float32", "int64", "uint32"):
        setattr(gl, name, getattr(np, name))
    gl.program_id = lambda axis: _local.program
    gl.static_range = range
    gl.arange = lambda begin, end, layout: tensor(np.arange(begin, end, dtype=np.int32))
    gl.zeros = lambda shape, dtype, layout: tensor(np.zeros(shape, dtype))
    gl.full = lambda shape, value, dtype, layout: tensor(np.full(shape, value, dtype))
    gl.maximum, gl.minimum = scalar_or(np.maximum), scalar_or(np.minimum)
    gl.where = lambda *values: tensor(np.where(*values))
    gl.max = lambda values, axis: tensor(values.max(axis))
    gl.sum = lambda values, axis: tensor(values.sum(axis))
    gl.exp2, gl.log2 = np.exp2, np.log2
    gl.convert_layout = lambda values, layout: values
    gl.load, gl.store = load, store
    gl.allocate_shared_memory, gl.warp_specialize = allocate_shared_memory, warp_specialize
    return gl


def interpreted(name):
    """The module `treeshare.kernels.<name>` once more, its kernels run by this interpreter."""
    gl = _language()
    gluon = ModuleType("triton.experimental.gluon")
    gluon.jit, gluon.language = Kernel, gl
    hopper = ModuleType("triton.experimental.gluon.language.nvidia.hopper")
    hopper.async_copy = SimpleNamespace(async_load=async_load, mbarrier_arrive=mbarrier_arrive)
    hopper.fence_async_shared = lambda: None
    hopper.mbarrier = SimpleNamespace(
        MBarrierLayout=lambda: None,
        init=init,
        wait=lambda barrier, phase, pred=True: barrier.wait(phase) if pred else None,
        arrive=Barrier.arrive,
    )
    hopper.warpgroup_mma, hopper.warpgroup_mma_wait = Product, warpgroup_mma_wait
    cuda = ModuleType("triton.language.extra.cuda")
    cuda.gdc_launch_dependents = cuda.gdc_wait = lambda: None
    fakes = {module.__name__: module for module in (gluon, gl, hopper, cuda)}
    original = importlib.import_module(f"treeshare.kernels.{name}")
    spec = importlib.util.spec_from_file_location(
        f"{original.__name__}_interpreted", original.__file__
    )
    module = importlib.util.module_from_spec(spec)
    with patch.dict(sys.modules, fakes), patch.object(triton.experimental, "gluon", gluon):
        spec.loader.exec_module(module)
    return module
