"""Named attention workloads: the shapes of trees on which decoding is timed, one `Forest` each.

Some are synthetic: FastTree's benchmark, DeFT's few-shot and speculative settings, sequences that
share nothing, random forests. Others are recorded: DeFT's templates (arXiv 2404.00242 section 4),
read from a directory that the user names. To measure other implementations on the same trees,
`python -m treeshare.experiments.bench.attention.workloads --templates DIR --out trees.json` writes
all of them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from treeshare.experiments.bench.templates import explained_template, recordings
from treeshare.kernels.planning.forest import Forest

# kernel_bench/run_benchmark.sh of FastTree (MLSys 2025): nodes per level | tokens per node.
FASTTREE = (
    "1,2,64|8,256,32",
    "1,4,256|8,256,32",
    "1,4,8,256|8,256,256,32",
    "1,256|256,32",
    "1,1024|2048,32",
    "1,16,64|1024,256,32",
    "1,4,16,512|1024,256,128,32",
    "1,4,16,64,256,1024|256,8,256,64,32,256",
    "1,10|4000,400",
    "1,2,4,8,16,32,64,128,1024|16,16,16,16,16,16,16,16,16",
    "1,2,4,8,16,32,64,128,1024|256,128,64,16,16,16,16,16,16",
    "1,8,16,32,64,128,1024|256,128,64,16,16,16,16",
    "1,8,16,32,64,256,1024|256,128,64,16,16,16,16",
    "1,16,32,64,128,1024|256,128,64,16,16,16",
    "1,16,32,64,256,1024|256,128,64,16,16,16",
)
# File -> indices in it: the trees that the peers were measured on; for the replay, the first
# complete tree of each file as well.
MEASURED = {"sorting128ToT": (16,), "set128ToT": (60,)}
REPLAYED = {"sorting128ToT": (1, 16), "set128ToT": (0, 60)}


@dataclass(frozen=True, slots=True)
class Workload:
    """The KV entries and queries of one decoding step. Names are unique over all groups."""

    name: str
    group: str  # a key of GROUPS
    forest: Forest


def fasttree() -> list[Workload]:
    """The 15 trees of FastTree's kernel benchmark."""
    return [_balanced(name, "fasttree") for name in FASTTREE]


def few_shot(
    prompt: int = 4000, generated: int = 200, branches: Sequence[int] = (20, 30, 50)
) -> list[Workload]:
    """DeFT's few-shot prompting (section 4), halfway through the 400 tokens of each branch."""
    return [_balanced(f"1,{count}|{prompt},{generated}", "few_shot") for count in branches]


def star(prompt: int = 1000, sizes: Sequence[int] = (32, 64, 128, 256)) -> list[Workload]:
    """DeFT's mocked speculative decoding (section 4): one-token leaves under the prompt."""
    return [_balanced(f"1,{size}|{prompt},1", "star") for size in sizes]


def chain(
    shapes: Sequence[tuple[int, int]] = ((1, 32768), (8, 8192), (64, 2048)),
    links: int = 256,
    length: int = 128,
) -> list[Workload]:
    """Sequences that share nothing, and one sequence that is cut into many nodes.

    Args:
        shapes: (number, tokens) of equal sequences.
        links: nodes of the one sequence.
        length: tokens of each of its nodes.
    """
    flat = [
        Workload(f"{count}x{tokens}", "chain", _forest([-1] * count, [tokens] * count))
        for count, tokens in shapes
    ]
    linked = _forest(np.arange(links) - 1, np.full(links, length))
    return [*flat, Workload(f"1x{links * length} in {links} nodes", "chain", linked)]


def random_forests(seed: int = 0, count: int = 8) -> list[Workload]:
    """Irregular forests: several roots, empty nodes, inner queries, up to 4 query tokens a node.

    Every query sees at least one entry.
    """
    workloads = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        size = int(rng.integers(2, 200))
        parent = np.array([int(rng.integers(max(-1, node - 40), node)) for node in range(size)])
        parent[rng.random(size) < 0.05] = -1
        length = (2 ** rng.uniform(0, 11, size)).astype(int)
        length[rng.random(size) < 0.15] = 0
        length[-1] = max(length[-1], 1)
        path = Forest.packed(parent, length, np.zeros_like(length)).depth_first().end
        queries = np.where(rng.random(size) < 0.1, rng.integers(2, 5, size), 1)
        queries[np.isin(np.arange(size), parent) & (rng.random(size) < 0.8)] = 0  # most interior
        queries[path == 0] = 0
        queries = np.where(length > 0, np.minimum(queries, length), queries)
        forest = Forest.packed(parent, length, queries)
        workloads.append(Workload(f"random {seed}.{number}", "random", forest))
    return workloads


def reasoning_trees(
    templates: str | Path, trees: Mapping[str, Sequence[int]] = MEASURED
) -> list[Workload]:
    """DeFT's recorded multi-step reasoning (section 4), with a query at every leaf.

    Args:
        templates: the directory of DeFT's templates.
        trees: file -> indices of trees in it.

    Raises:
        ValueError: a file is missing, is no such template, or has no complete tree at that index.
    """
    return [
        Workload(name, "reasoning", _forest(recording.parent, recording.length))
        for name, recording in recordings(templates, trees).items()
    ]


def reasoning_replay(
    templates: str | Path, trees: Mapping[str, Sequence[int]] = REPLAYED, snapshots: int = 4
) -> list[Workload]:
    """DeFT's recorded reasoning at some iterations, with queries only where a node decodes.

    Args:
        templates: the directory of DeFT's templates.
        trees: file -> indices of trees in it.
        snapshots: iterations of each tree, the middles of as many equal parts.

    Raises:
        ValueError: as of `reasoning_trees`.
    """
    workloads = []
    for name, recording in recordings(templates, trees).items():
        count = int(recording.last_iterations().max())
        for part in range(snapshots):
            iteration = max(1, (2 * part + 1) * count // (2 * snapshots))
            forest = recording.at(iteration)
            workloads.append(Workload(f"{name} {iteration}/{count}", "replay", forest))
    return workloads


def token_trees(
    templates: str | Path, prompt: int = 1016, sizes: Sequence[int] = (32, 64, 256)
) -> list[Workload]:
    """Medusa's token trees as they are verified: below the prompt, a node is a token and a query.

    A template's `Tree_Structure` lists each candidate token by its path, the number of the
    candidate at each depth: [0, 2] is a child of [0]. All are below the token that the model itself
    sampled. That token is a node as well here, so there are `Token_Tree_size` queries. DeFT's
    prompts have 1016 tokens on average.

    Args:
        templates: the directory of DeFT's templates.
        prompt: tokens of the prompt.
        sizes: of the token trees.

    Raises:
        ValueError: a file is missing or is no such template.
    """
    workloads = []
    for size in sizes:
        file = Path(templates) / f"APPS_tree_size{size}.json"
        with explained_template(file):
            paths = [tuple(path) for path in json.loads(file.read_text())["Tree_Structure"]]
            numbers = {path: 2 + place for place, path in enumerate(sorted(paths, key=len))}
            numbers[()] = 1  # the model's own token; 0 is the prompt
            parent = [-1, 0] + [numbers[path[:-1]] for path in numbers if path]
            num_queries = np.minimum(np.arange(len(parent)), 1)
            length = np.where(num_queries, 1, prompt)
            forest = Forest.packed(np.array(parent), length, num_queries)
        workloads.append(Workload(f"{file.stem} verified", "token_trees", forest))
    return workloads


GROUPS: dict[str, Callable[..., list[Workload]]] = {
    "fasttree": fasttree,
    "few_shot": few_shot,
    "star": star,
    "chain": chain,
    "random": random_forests,
    "reasoning": reasoning_trees,
    "replay": reasoning_replay,
    "token_trees": token_trees,
}
RECORDED = frozenset({"reasoning", "replay", "token_trees"})  # groups that need the templates


def build(groups: Sequence[str], templates: str | Path | None = None) -> list[Workload]:
    """The workloads of some groups, in that order.

    Args:
        groups: keys of `GROUPS`.
        templates: the directory of DeFT's templates.

    Raises:
        ValueError: there is no such group, or it needs templates, which are not given or not found.
    """
    for group in groups:
        if group not in GROUPS:
            raise ValueError(f"group={group!r} must be one of {', '.join(GROUPS)}")
        if group in RECORDED and templates is None:
            raise ValueError(f"group={group!r} needs templates=<the directory of DeFT's templates>")
    made = (GROUPS[group](*[templates] * (group in RECORDED)) for group in groups)
    return [workload for part in made for workload in part]


def _balanced(name: str, group: str) -> Workload:
    """The tree that `nodes per level|tokens per node` names.

    The nodes of a level are split evenly over those of the level above.
    """
    nodes, context = ([int(number) for number in part.split(",")] for part in name.split("|"))
    parent = [-1] * nodes[0]
    for above, count in pairwise(nodes):
        first = len(parent) - above
        parent += [first + place * above // count for place in range(count)]
    return Workload(name, group, _forest(parent, np.repeat(context, nodes)))


def _forest(parent: Any, length: Any) -> Forest:
    """A forest with one query at every leaf."""
    is_leaf = ~np.isin(np.arange(len(parent)), parent)
    return Forest.packed(np.asarray(parent), np.asarray(length), is_leaf.astype(int))


def heads(text: str) -> list[tuple[int, int]]:
    """Read pairs of query and KV heads, such as `32/8,32/32`."""
    pairs = [pair.split("/") for pair in text.split(",")]
    return [(int(hq), int(hk)) for hq, hk in pairs]


def _shape(forest: Forest) -> dict[str, list[int]]:
    return {key: getattr(forest, key).tolist() for key in ("parent", "length", "num_queries")}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write workloads to a JSON file; `arguments` are those of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, prog="workloads")
    parser.add_argument("--templates", help="the directory of DeFT's templates")
    parser.add_argument("--groups", default=",".join(GROUPS), help="default: %(default)s")
    parser.add_argument("--heads", type=heads, default="32/8,32/32", help="query/KV, by commas")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    given = parser.parse_args(arguments)
    try:
        workloads = build(given.groups.split(","), given.templates)
        rows = [
            {"name": each.name, **_shape(each.forest), "hq": hq, "hk": hk, "d": 128}
            for hq, hk in given.heads
            for each in workloads
        ]
        given.out.write_text(json.dumps(rows))
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
