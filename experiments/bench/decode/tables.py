"""Measurements of decoding end to end as rows, and the Markdown made of them.

They are the DeFT paper's Table 5 (arXiv 2404.00242), the time budget of a step, the KV pool under
pressure, and the comparison of engines on one search.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from treeshare.experiments.bench.attention.tables import cell, markdown_table

PAPER = ("sequence", "deft_node", "deft_node_chunk", "deft_flatten", "deft")
"""Attentions of the paper's table."""
BASELINE, OURS = "sequence", "deft"
"""The attention that others are compared with, and the one compared."""
_ABOUT_SECONDS = """\
Wall seconds of all requests, prefill included; in brackets the device's seconds in attention, over
all decode steps."""
_ABOUT_STEPS = """\
A decode step, ms: wall; its floors at the measured bandwidth (the weights without the embedding
table; the KV entries, each once); device time by kind; and the gap in which the device idles."""
_ABOUT_ARMS = """\
## Four arms: ToT-BFS on Game of 24

One program, one seed. `hf_one` and `hf_batched` are Hugging Face's `generate`, and padded forwards
to score, with SDPA: a request at a time, and in batches. The others are our engine. All draw with
our sampler. An arm that the time limit cut counts what was done."""


@dataclass(frozen=True, slots=True)
class Setting:
    """The setting that all rows of a directory share: setting.json."""

    machine: str  # the device's name
    torch: str  # version
    transformers: str
    triton: str
    max_num_seqs: int
    max_num_batched_tokens: int
    seed: int
    bandwidth: float | None  # bytes a second, measured; None without timing


@dataclass(frozen=True, slots=True)
class Measurement:
    """One attention on one workload with one model: a line of results.jsonl.

    A column that was not measured, or that needs a GPU, is None. Times of a step are means.
    """

    model: str
    weights: str  # random or real
    dtype: str
    fused: bool
    group: str  # a value of the key `workload`
    workload: str
    attention: str
    note: str = ""  # why it was skipped
    seconds: float | None = None  # wall, all requests
    first_token_seconds: float | None = None  # of the first request's first tokens, nothing cached
    attention_seconds: float | None = None  # on the device, of all decode steps
    tokens: int | None = None  # generated
    prompt_tokens: int | None = None  # each request's, cached or not
    steps: int | None = None  # decode steps
    step_ms: float | None = None  # wall
    weights_ms: float | None = None  # parameters that a step reads, at the measured bandwidth
    kv_ms: float | None = None  # the step's KV entries, each once, likewise
    attention_ms: float | None = None  # device time, as the next three
    matmul_ms: float | None = None
    sampling_ms: float | None = None
    other_ms: float | None = None
    kv_entries: float | None = None  # a step, each once
    evicted: int | None = None  # KV entries
    paused: int | None = None  # times a sequence waited for memory
    kv_tokens: int | None = None  # of the pool
    equal: int | None = None  # completions equal to those of the whole pool
    completions: int | None = None

    @property
    def key(self) -> tuple[str, str, bool, str, str]:
        """The case, which is measured once."""
        return self.model, self.dtype, self.fused, self.workload, self.attention

    @property
    def label(self) -> str:
        """The model, with its weights and its dtype."""
        fused = ", fused" if self.fused else ""
        return f"{self.model} ({self.weights} weights, {self.dtype}{fused})"

    @property
    def gap_ms(self) -> float | None:
        """Time of a step in which the device idles."""
        parts = (self.attention_ms, self.matmul_ms, self.sampling_ms, self.other_ms)
        known = [part for part in parts if part is not None]
        return self.step_ms - sum(known) if known and self.step_ms else None

    @property
    def ratio(self) -> float | None:
        """The step's time over its floor, which is to read weights and KV."""
        if self.step_ms is None or self.weights_ms is None or self.kv_ms is None:
            return None
        return self.step_ms / (self.weights_ms + self.kv_ms)


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to serve a search: a line of arms.jsonl."""

    model: str
    weights: str
    dtype: str
    fused: bool  # of our engine
    search: str  # in words
    arm: str
    puzzles: int = 0
    finished: int = 0  # of them
    nodes: int = 0  # made and valued
    requests: int = 0  # answered
    forwards: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0  # that this took
    is_cut: bool = False  # the time limit came before the last puzzle

    @property
    def key(self) -> tuple[str, str, bool, str, str]:
        """The case, which is measured once."""
        return self.model, self.dtype, self.fused, self.search, self.arm

    @property
    def nodes_per_second(self) -> float:
        """Nodes made and valued a second."""
        return self.nodes / self.seconds if self.seconds else 0.0


def report(setting: Setting, rows: Sequence[Measurement], arms: Sequence[Arm]) -> str:
    """Write results.md."""
    versions = f"torch {setting.torch}, transformers {setting.transformers}"
    text = f"# Decoding end to end: {setting.machine}\n\n{versions}, triton {setting.triton}"
    text += f"; at most {setting.max_num_seqs} sequences"
    text += f" and {setting.max_num_batched_tokens} tokens a forward"
    if setting.bandwidth:
        text += f"; measured {setting.bandwidth / 1e12:.3f} TB/s"
    text += ".\n"
    for label in dict.fromkeys(row.label for row in rows):
        ours = [row for row in rows if row.label == label]
        timed = [row for row in ours if row.group != "pressure"]
        text += f"\n## {label}\n"
        if timed:
            text += f"\n{_ABOUT_SECONDS}\n\n{seconds_table(timed)}\n"
            text += f"\n{_ABOUT_STEPS}\n\n{budget_table(timed)}\n"
        if pressed := [row for row in ours if row.group == "pressure" and row.seconds]:
            text += f"\nThe same requests with less memory.\n\n{pressure_table(pressed)}\n"
        if notes := [f"- {row.workload}, {row.attention}: {row.note}" for row in ours if row.note]:
            text += "\n" + "\n".join(notes) + "\n"
    if arms:
        text += f"\n{_ABOUT_ARMS}\n\n{arms_table(arms)}\n"
    return text


def seconds_table(rows: Sequence[Measurement]) -> str:
    """Write Table 5: workloads by attention, in seconds (attention seconds), and our speed-up."""
    others = dict.fromkeys(row.attention for row in rows if row.attention not in PAPER)
    names = (*PAPER, *others)
    body = []
    for workload in dict.fromkeys(row.workload for row in rows):
        of = {row.attention: row for row in rows if row.workload == workload}
        cells = [_seconds(of.get(name)) for name in names]
        ours, base = of.get(OURS), of.get(BASELINE)
        speed_up = ours and base and ours.seconds and base.seconds and base.seconds / ours.seconds
        body.append([workload, *cells, cell(speed_up or None, ".2f")])
    return markdown_table(("workload", *names, f"{OURS} over {BASELINE}"), body, left={0})


def budget_table(rows: Sequence[Measurement]) -> str:
    """Write the time budget of a decode step, a line a row."""
    head = (
        "workload", "attention", "steps", "step", "weights", "KV", "x floor", "attention", "matmul",
        "sampling", "other", "gap", "gap %", "tokens/s", "first tokens s",
    )  # fmt: skip
    body = [
        [
            row.workload, row.attention, cell(row.steps, "d"), cell(row.step_ms, ".2f"),
            cell(row.weights_ms, ".2f"), cell(row.kv_ms, ".2f"), cell(row.ratio, ".2f"),
            cell(row.attention_ms, ".2f"), cell(row.matmul_ms, ".2f"),
            cell(row.sampling_ms, ".2f"), cell(row.other_ms, ".2f"), cell(row.gap_ms, ".2f"),
            cell(row.gap_ms and row.step_ms and 100 * row.gap_ms / row.step_ms, ".1f"),
            cell(row.tokens and row.seconds and row.tokens / row.seconds, ",.0f"),
            cell(row.first_token_seconds, ".3f"),
        ]
        for row in rows
        if row.seconds
    ]  # fmt: skip
    return markdown_table(head, body, left={0, 1})


def pressure_table(rows: Sequence[Measurement]) -> str:
    """Write the seconds, evictions and pauses of each pool."""
    head = ("workload", "attention", "pool", "seconds", "equal answers", "evicted", "paused")
    body = [
        [
            row.workload, row.attention, cell(row.kv_tokens, ",d"), cell(row.seconds, ".2f"),
            f"{row.equal} of {row.completions}", cell(row.evicted, ",d"), cell(row.paused, ",d"),
        ]
        for row in rows
    ]  # fmt: skip
    return markdown_table(head, body, left={0, 1})


def arms_table(arms: Sequence[Arm]) -> str:
    """Write the arms, and for each the ratio of our nodes a second on the same search to its."""
    head = (
        "model", "search", "arm", "puzzles", "nodes", "requests", "forwards", "tokens in",
        "tokens out", "seconds", "nodes/s", f"{OURS} over it",
    )  # fmt: skip
    body = []
    for arm in arms:
        ours = [
            each.nodes_per_second / arm.nodes_per_second
            for each in arms
            if each.key == (*arm.key[:-1], OURS) and arm.nodes
        ]
        body.append([
            f"{arm.model} ({arm.weights} weights, {arm.dtype})", arm.search, arm.arm,
            f"{arm.finished} of {arm.puzzles}" + ", cut" * arm.is_cut, f"{arm.nodes:,}",
            f"{arm.requests:,}", f"{arm.forwards:,}", f"{arm.prompt_tokens:,}",
            f"{arm.completion_tokens:,}", f"{arm.seconds:.1f}", f"{arm.nodes_per_second:.1f}",
            cell(ours[0] if ours else None, ".1f"),
        ])  # fmt: skip
    return markdown_table(head, body, left={0, 1, 2})


def _seconds(row: Measurement | None) -> str:
    if row is None or row.seconds is None:
        return ""
    attention = row.attention_seconds
    return f"{row.seconds:.2f}" + ("" if attention is None else f" ({attention:.2f})")
