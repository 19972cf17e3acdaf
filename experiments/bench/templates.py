"""DeFT's templates (arXiv 2404.00242 section 4): recorded searches, read from a directory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from treeshare.kernels.planning.forest import Forest


@dataclass(frozen=True, slots=True)
class Recording:
    """A recorded search: its tree, which fixes the nodes that decode at each iteration.

    The root is the prompt; nodes are numbered from it. A node decodes a token an iteration, from
    the one after its parent's last until its recorded length is reached; then its children are
    branched, or it is pruned. This agrees with the starts and ends in DeFT's templates.

    Args:
        parent: [N] int; -1 for the root; every parent precedes its children.
        length: [N] int, tokens.
    """

    parent: np.ndarray
    length: np.ndarray

    def last_iterations(self) -> np.ndarray:
        """Return the iteration, from 1, of each node's last token, [N]; 0 for the root."""
        tree = Forest.packed(self.parent, self.length, np.zeros_like(self.length))
        last: np.ndarray = tree.depth_first().end - self.length[0]
        return last

    def at(self, iteration: int) -> Forest:
        """Return the nodes that decode at an iteration, with their new token, and those above.

        Iteration 0 is the prefill: the prompt alone, without a query.
        """
        last = self.last_iterations()
        first = last - self.length + 1
        is_live = (first <= iteration) & (iteration <= last) & (self.parent >= 0)
        length = np.where(is_live, iteration - first + 1, self.length)
        below = Forest.packed(self.parent, length, is_live.astype(int)).depth_first()
        is_kept = below.hi > below.lo
        is_kept[0] = True
        parent = np.where(self.parent < 0, -1, (np.cumsum(is_kept) - 1)[self.parent])
        return Forest.packed(parent[is_kept], length[is_kept], is_live[is_kept].astype(int))


def recordings(templates: str | Path, trees: Mapping[str, Sequence[int]]) -> dict[str, Recording]:
    """Read recorded searches, by a name such as `sorting128ToT[16]`: the file, and an index in it.

    Raises:
        ValueError: a file is missing, is no such template, or has no complete tree at that index.
    """
    found = {}
    for file_name, indices in trees.items():
        file = Path(templates) / f"{file_name}.json"
        with explained_template(file):
            records = json.loads(file.read_text())
            for index in indices:
                record = records[index]
                if record["incompleted"]:
                    raise ValueError(f"the search at {index} is incomplete")
                nodes = {node["id"]: node for node in record["data"].values()}
                parent = np.full(len(nodes), -1)
                for node in nodes.values():
                    parent[node["children"]] = node["id"]
                length = np.array([nodes[number]["value"] for number in range(len(nodes))])
                if (parent >= np.arange(len(parent))).any() or (parent[1:] < 0).any():
                    raise ValueError(f"the nodes of {index} are no tree in order")
                found[f"{file_name}[{index}]"] = Recording(parent, length)
    return found


@contextmanager
def explained_template(file: Path) -> Iterator[None]:
    """Name in one line the template that cannot be read."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"templates: {file}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"templates: {file} has unexpected contents: {error}") from None
