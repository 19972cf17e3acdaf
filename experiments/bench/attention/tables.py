"""Measurements of tree attention as rows, and the Markdown tables made of them.

There is a table of everything, the DeFT paper's ablation (arXiv 2404.00242 section 4: node,
node-chunk, flatten), and a table of how far each variant is from the floor.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import geometric_mean

ABLATION = ("deft_node", "deft_node_chunk", "deft_flatten", "sequence", "tree_mask", "deft")
# Below this floor launches cost more than bytes, so the difference is judged and not the ratio.
SMALL_US = 10.0


@dataclass(frozen=True, slots=True)
class Setting:
    """What all rows of a directory have in common: the content of setting.json."""

    machine: str  # the device's name
    torch: str  # version
    triton: str
    dtype: str
    head_dim: int
    repeats: int  # replays, of which the median counts
    seed: int
    bandwidth: float | None  # bytes a second, measured; None without timing
    flop_rate: float | None  # floating point operations a second, likewise


@dataclass(frozen=True, slots=True)
class Measurement:
    """One variant on one workload with one pair of head numbers: a line of results.jsonl.

    What was not measured is None: all of the variant's columns if it was skipped, the times if the
    result is wrong.
    """

    workload: str
    group: str
    heads: str  # query heads / KV heads
    variant: str
    num_queries: int  # B
    num_entries: int  # KV entries that a query sees
    kv_mb: float  # megabytes of these entries in one layer
    floor_us: float | None  # roofline.floor_seconds, in microseconds
    ok: bool | None = None  # whether the error is within bounds; None if skipped
    note: str = ""  # why it was skipped, is wrong, or has fewer layers than wanted
    layers: int | None = None  # layers of distinct KV in one replay
    us: float | None = None  # microseconds of one layer
    plan_ms: float | None = None  # milliseconds of the host for another plan in the same memory
    num_reads: int | None = None  # KV entries that the items read
    partial_rows: int | None = None
    items: int | None = None
    counted_mb: float | None = None  # what the plan moves: reads, partial results, queries, outputs
    error: float | None = None  # relative RMS against fp32; None if not finite
    torch_error: float | None = None  # PyTorch's in the same dtype

    @property
    def ratio(self) -> float | None:
        """Time over floor; None without either."""
        return self.us / self.floor_us if self.us and self.floor_us else None


def report(setting: Setting, rows: Sequence[Measurement]) -> str:
    """The text of results.md."""
    of = f"torch {setting.torch}, triton {setting.triton}, {setting.dtype}"
    text = f"# Tree attention: {setting.machine}\n\n{of}, head dimension {setting.head_dim}"
    if setting.bandwidth and setting.flop_rate:
        text += (
            f"; measured {setting.bandwidth / 1e12:.3f} TB/s and {setting.flop_rate / 1e12:.0f} "
            f"TFLOP/s.\nµs a layer: median of {setting.repeats} replays of one CUDA graph over "
            f"layers of distinct KV.\n\n## Against the floor\n\n{floor_table(rows)}\n\n"
            f"## Ablation\n\nµs, and in brackets times `deft`'s.\n\n{ablation_table(rows)}"
        )
    return f"{text}\n\n## All\n\n{results_table(rows)}\n"


def results_table(rows: Iterable[Measurement]) -> str:
    """A Markdown table of all columns, one line a measurement."""
    head = (
        "workload", "heads", "B", "tokens", "KV MB", "floor µs", "variant", "µs", "x floor",
        "plan ms", "read / unique", "partial rows", "items", "counted MB", "error", "torch error",
        "layers", "note",
    )  # fmt: skip
    body = [
        [
            row.workload, row.heads, f"{row.num_queries}", f"{row.num_entries}",
            f"{row.kv_mb:.2f}", cell(row.floor_us, ".2f"), row.variant, cell(row.us, ".1f"),
            cell(row.ratio, ".2f"), cell(row.plan_ms, ".3f"),
            cell(row.num_reads and row.num_reads / row.num_entries, ".2f"),
            cell(row.partial_rows, "d"), cell(row.items, "d"), cell(row.counted_mb, ".2f"),
            cell(row.error, ".2e"), cell(row.torch_error, ".2e"), cell(row.layers, "d"),
            "WRONG: " * (row.ok is False) + row.note,
        ]
        for row in rows
    ]  # fmt: skip
    return markdown_table(head, body, left={0, 1, 6, 17})


def ablation_table(rows: Sequence[Measurement]) -> str:
    """A Markdown table of workloads by variants, in µs, and in brackets times `deft`'s.

    Below each pair of head numbers stand the geometric means of the ratios, over the workloads that
    have both times.
    """
    body = []
    for heads in dict.fromkeys(row.heads for row in rows):
        us = {(r.workload, r.variant): r.us for r in rows if r.heads == heads and r.us}
        ratios: dict[str, list[float]] = {variant: [] for variant in ABLATION}
        for name in dict.fromkeys(workload for workload, _ in us):
            ours, cells = us.get((name, "deft")), []
            for variant in ABLATION:
                time = us.get((name, variant))
                cells.append(cell(time, ".1f"))
                if time and ours:
                    ratios[variant].append(time / ours)
                    cells[-1] += f" ({time / ours:.2f})"
            body.append([name, heads, *cells])
        means = [f"({geometric_mean(each):.2f})" if each else "" for each in ratios.values()]
        if any(means):
            body.append(["geometric mean", heads, *means])
    return markdown_table(("workload", "heads", *ABLATION), body, left={0, 1})


def floor_table(rows: Sequence[Measurement]) -> str:
    """A Markdown table of how far from the floor each variant is, by heads.

    It has the geometric mean of time / floor over the workloads whose floor is at least `SMALL_US`,
    and how many of the others are within floor + `SMALL_US`.
    """
    body = []
    for heads, variant in dict.fromkeys((row.heads, row.variant) for row in rows):
        timed = [
            (row.us, row.floor_us)
            for row in rows
            if (row.heads, row.variant) == (heads, variant) and row.us and row.floor_us
        ]
        large = [us / floor for us, floor in timed if floor >= SMALL_US]
        small = [us <= floor + SMALL_US for us, floor in timed if floor < SMALL_US]
        mean = f"{geometric_mean(large):.2f}" if large else ""
        within = f"{sum(small)} of {len(small)}" if small else ""
        body.append([heads, variant, mean, f"{len(large)}", within])
    limit = f"{SMALL_US:g} µs"
    head = ("heads", "variant", f"x floor, floor >= {limit}", "of", f"smaller: in floor + {limit}")
    return markdown_table(head, body, left={0, 1})


def cell(value: float | None, form: str) -> str:
    """The value in the format `form`; empty for None."""
    return "" if value is None else f"{value:{form}}"


def markdown_table(head: Sequence[str], body: Iterable[Sequence[str]], left: set[int]) -> str:
    """A Markdown table; the columns numbered in `left` are aligned to the left."""
    rule = [":---" if column in left else "---:" for column in range(len(head))]
    lines = [head, rule, *([text.replace("|", r"\|") for text in row] for row in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
