"""Check that the first questions of reasoning-gym's data sets are the same in every run.

    python tests/support/question_stability.py

For every data set the script prints what changes the package's own entries: another size, other
random numbers of the process, or another seed of Python's hashes. Then it prints whether the task
gives the same questions for two limits, each in a new process. It takes some minutes, and ends with
exit code 1 if a task does not.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import subprocess
import sys
import warnings

NUM_QUESTIONS, SEED = 12, 3
SLOW = {"knight_swap": 2}  # seconds for an entry: fewer of them
VARIANTS = {  # size, seed of the random numbers, seed of the hashes
    "as it is": (NUM_QUESTIONS, 1, 1),
    "size": (3 * NUM_QUESTIONS, 1, 1),
    "random": (NUM_QUESTIONS, 2, 1),
    "hash": (NUM_QUESTIONS, 1, 2),
}


def names() -> list[str]:
    from reasoning_gym.factory import DATASETS

    return sorted(set(DATASETS) - {"composite"})


def entries_alone(size: int, seed: int) -> dict[str, list[list[str]]]:
    """Return question, answer and metadata of the first entries that the package makes here."""
    import numpy as np
    import reasoning_gym

    found = {}
    for name in names():
        random.seed(seed)
        np.random.seed(seed)
        with contextlib.redirect_stdout(io.StringIO()):
            dataset = reasoning_gym.create_dataset(name, seed=SEED, size=size)
            made = [dataset[i] for i in range(SLOW.get(name, NUM_QUESTIONS))]
        found[name] = [[repr(e[k]) for k in ("question", "answer", "metadata")] for e in made]
    return found


def main() -> int:
    from treeshare.tasks.reasoning_gym.task import ReasoningGym

    found = {}
    for variant, (size, seed, hash_seed) in VARIANTS.items():
        command = [sys.executable, "-W", "ignore", __file__, str(size), str(seed)]
        environment = os.environ | {"PYTHONHASHSEED": str(hash_seed)}
        found[variant] = json.loads(subprocess.check_output(command, env=environment))
    bad = 0
    for name in names():
        own = found["as it is"][name]
        differing = {
            f"{part} by {variant}"
            for variant in found
            for a, b in zip(own, found[variant][name], strict=True)
            for part, x, y in zip(("question", "answer", "metadata"), a, b, strict=True)
            if x != y
        }
        limit = SLOW.get(name, 4)
        few, more = (ReasoningGym(name, limit=n, seed=SEED).problems() for n in (limit, 2 * limit))
        is_same = few == more[:limit]
        bad += not is_same
        alone = ", ".join(sorted(differing)) or "the same"
        print(f"{name:28} alone: {alone}; as a task: {'the same' if is_same else 'DIFFERENT'}")
        sys.stdout.flush()
    print(f"{len(names())} data sets, {bad} of them differ as a task")
    return 1 if bad else 0


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    if sys.argv[1:]:
        json.dump(entries_alone(int(sys.argv[1]), int(sys.argv[2])), sys.stdout)
    else:
        sys.exit(main())
