"""Results of configurations for the tests of reports, without any run."""

from statistics import fmean

from treeshare.experiments.reports.config_results import ConfigResult, PuzzleMeans
from treeshare.experiments.reports.intervals import Estimate


def result(name="io", *, top1=(1.0, 0.0), **more):
    """A result whose puzzles are named p0, p1, ...

    Args:
        name: the policy's.
        top1: each puzzle's mean over the seeds.
        more: other fields of the result. Costs that are numbers become intervals where needed.
    """
    share = Estimate(fmean(top1), 0.0, 1.0)
    tokens = more.pop("tokens", 100.0)
    means = [PuzzleMeans(value, value) for value in top1]
    given = {
        "task": "game24",
        "model": "m",
        "parameters": {},
        "seeds": 1,
        "b": 5,
        "puzzles": {f"p{i}": one for i, one in enumerate(means)},
        "is_oracle": False,
        "tokens": Estimate(tokens, tokens / 2, 2 * tokens),
        "kv_tokens": 50.0,
        "seconds": 1.0,
        "nodes": 10.0,
        "requests": 5.0,
        "grades": {},
    }
    return ConfigResult(
        name=name, **dict.fromkeys(("top1", "any_of_b", "mean_accuracy"), share), **given | more
    )
