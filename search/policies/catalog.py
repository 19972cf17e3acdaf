"""One row a policy: its paper, what it asks, what of it goes out together, what it may cost.

A table and nothing else: it imports no policy. A new policy of the package adds a row; a test
holds the rows to what `treeshare.search` exports, and the costs to what searches send.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields


@dataclass(frozen=True, slots=True)
class Description:
    policy: str  # the class's name
    paper: str
    asks: str  # "expand" is the run's expander; else roles of the task
    evaluates: str  # what goes to the run's evaluator, whose requests come on top
    together: str  # requests of one search that share a batch; other searches' always join
    requests: str | None  # most of them, an expression over the policy's parameters; None: no bound


def describe() -> tuple[Description, ...]:
    """Every policy of the package: samplers, then trees by level, by priority, by simulation."""
    return _ROWS


def markdown() -> str:
    """The rows as a table."""
    names = [field.name for field in fields(Description)]
    rows = [names, ["---"] * len(names)]
    for row in _ROWS:
        *texts, requests = astuple(row)
        rows.append([*texts, "no bound" if requests is None else f"`{requests}`"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


_D = Description

_ROWS = (
    _D("IO", "baseline", "io", "nothing", "all", "1"),
    _D("CoT", "Wei et al., 2201.11903", "cot", "nothing", "all", "1"),
    _D("SelfConsistency", "Wang et al., 2203.11171", "io or cot", "nothing", "all", "1"),
    _D("WeightedSelfConsistency", "Li et al., 2206.02336", "io or cot", "answers", "all", "1"),
    _D("BestOfN", "Cobbe et al., 2110.14168", "io or cot", "all samples", "all", "1"),
    _D(
        "SelfRefine",
        "Madaan et al., 2303.17651",
        "io or cot, feedback, refine",
        "nothing",
        "nothing",
        "1 + 2 * iterations",
    ),
    _D(
        "ToTBFS",
        "Yao et al., 2305.10601",
        "expand",
        "all children",
        "a level",
        "1 + (depth - 1) * breadth",
    ),
    _D("ToTDFS", "Yao et al., 2305.10601", "expand", "all children", "one state", None),
    _D(
        "Beam",
        "Xie et al., 2305.00633",
        "expand",
        "all children",
        "a level",
        "1 + (depth - 1) * width",
    ),
    _D(
        "DVTS",
        "Beeching et al., 2024 (Hugging Face)",
        "expand",
        "all children",
        "a level",
        "1 + (depth - 1) * subtrees",
    ),
    _D(
        "REBASE",
        "Wu et al., 2408.00724",
        "expand",
        "all children",
        "a level",
        "1 + (depth - 1) * width",
    ),
    _D(
        "ParticleFilter",
        "Puri et al., 2502.01618",
        "expand",
        "the particles",
        "a level",
        "1 + (depth - 1) * particles",
    ),
    _D(
        "BestFirst",
        "Koh et al., 2407.01476",
        "expand",
        "all children",
        "`width` states",
        "expansions",
    ),
    _D(
        "AStar",
        "Hart et al., 1968; Zhuang et al., 2310.13227",
        "expand",
        "all children",
        "`width` states",
        "expansions",
    ),
    _D(
        "MCTS",
        "Kocsis & Szepesvári, 2006; Silver et al., 2017",
        "expand",
        "one node a simulation",
        "`parallel` simulations",
        "simulations",
    ),
    _D(
        "GumbelMCTS",
        "Danihelka et al., 2022 (ICLR)",
        "expand",
        "one node a simulation, the root",
        "`parallel` simulations",
        "1 + simulations",
    ),
    _D(
        "RAP",
        "Hao et al., 2305.14992",
        "expand",
        "all children",
        "`parallel` simulations",
        "simulations * depth",
    ),
    _D(
        "LATS",
        "Zhou et al., 2310.04406",
        "expand, reflect",
        "all children",
        "`parallel` simulations",
        "simulations * depth + reflections",
    ),
    _D(
        "ABMCTS",
        "Inoue et al., 2503.04412",
        "expand",
        "all children",
        "`parallel` simulations",
        "simulations",
    ),
    _D(
        "GoT",
        "Besta et al., 2308.09687",
        "split, solve, merge, improve",
        "all thoughts but the parts",
        "all parts, then all pairs",
        None,
    ),
    _D(
        "AskTell",
        "the algorithm's own",
        "step, io or cot",
        "all samples",
        "`parallel` trials",
        "trials",
    ),
)
