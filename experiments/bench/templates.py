"""DeFT's templates (arXiv 2404.00242 section 4): recorded searches, read from a directory.

Knows the files' format, and which nodes of a recorded tree decode when; nothing of workloads.
"""

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
    """A search that was recorded: its tree, and so which nodes decode at which iteration.

    The root is the prompt; nodes are numbered from it. A node decodes a token an iteration, from
    the one after its parent's last until its recorded length is reached; its children are then
    branched, or it is pruned. So it is by the starts and ends that DeFT's templates note.
    """

    parent: np.ndarray  # [N] int; -1 for the root; every parent precedes its children
    length: np.ndarray  # [N] int, tokens

    def last_iterations(self) -> np.ndarray:
        """The iteration, from 1, at which each node gets its last token: [N]; 0 for the root."""
        tree = Forest.packed(self.parent, self.length, np.zeros_like(self.length))
        last: np.ndarray = tree.depth_first().end - self.length[0]
        return last

    def at(self, iteration: int) -> Forest:
        """The nodes that decode at an iteration, with the token that they add, and those above.

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
    """By name, as `sorting128ToT[16]`: the file, and the index in it.

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
    """Tells in one line which template cannot be read."""
    try:
        yield
    except OSError as error:
        raise ValueError(f"templates: {file}: {error.strerror}") from None
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"templates: {file} has not what is asked of it: {error}") from None
