"""Reasoning search over language models that owns its KV cache.

    import treeshare as ts

    run = ts.solve(
        ts.tasks.Game24(limit=20),
        engine=ts.load_engine("embedded"),
        policy=ts.search.ToTBFS(breadth=5),
    )
    print(run.table())
    run["game24/1-5-5-5"].graph

The import is light: what it offers is loaded at its first use.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from treeshare import search as search
    from treeshare import tasks as tasks
    from treeshare.experiments.runs.config import SetupError as SetupError
    from treeshare.llm_backend.engines.mock import MockEngine as MockEngine

    from .api import solve as solve
    from .description import describe as describe
    from .engines import LoadedEngine as LoadedEngine
    from .engines import load_engine as load_engine
    from .results import Interrupted as Interrupted
    from .results import PuzzleResult as PuzzleResult
    from .results import Run as Run
    from .tables import Table as Table
    from .tables import load_runs as load_runs

_HOMES = {
    "Interrupted": "treeshare.results",
    "LoadedEngine": "treeshare.engines",
    "MockEngine": "treeshare.llm_backend.engines.mock",
    "PuzzleResult": "treeshare.results",
    "Run": "treeshare.results",
    "SetupError": "treeshare.experiments.runs.config",
    "Table": "treeshare.tables",
    "describe": "treeshare.description",
    "load_engine": "treeshare.engines",
    "load_runs": "treeshare.tables",
    "solve": "treeshare.api",
}
_SUBMODULES = ("search", "tasks")

__all__ = ["__version__", *_HOMES, *_SUBMODULES]

# The folders of this package are links into the checkout. Where links cannot be made (a ZIP
# download, Windows), they are small text files: the checkout itself then holds the packages.
if not Path(__file__).with_name("search").is_dir():
    __path__.append(str(Path(__file__).parents[1]))


if not TYPE_CHECKING:  # a type checker would then allow every name

    def __getattr__(name: str) -> Any:
        """Load a name of `__all__` at its first use."""
        if name in _SUBMODULES:
            return import_module(f"treeshare.{name}")
        if name not in _HOMES:
            raise AttributeError(f"module 'treeshare' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
