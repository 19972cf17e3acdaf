"""The import arrows of the design: which folder may import which, and who owns which library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from places import PACKAGE, ROOT

FOLDERS = ["conf", "experiments", "kernels", "llm_backend", "search", "tasks"]

# Folder -> the modules of ours it may import (prefixes).
ALLOWED = {
    "conf": [],
    "kernels": ["kernels"],
    "tasks": ["tasks"],
    "llm_backend": ["llm_backend", "kernels"],
    "search": ["search", "tasks.task", "llm_backend.api"],
    # of the front door, treeshare/*.py, only the version
    "experiments": ["experiments", "search", "llm_backend", "tasks", "kernels", "__version__"],
}

# Library -> the files or folders that may import it.
OWNERS = {
    "jinja2": ["llm_backend/chat"],
    "networkx": ["search/graph.py"],
    "transformers": [
        *("llm_backend/model/network.py", "llm_backend/model/random_models.py"),
        *(
            "llm_backend/model/loading.py",
            "llm_backend/model/stored.py",
            "experiments/check_model/main.py",
            "llm_backend/model/compatibility.py",
            "experiments/training/small_llama.py",
        ),
    ],
    "triton": ["kernels"],
    "torch": ["kernels", "llm_backend", "experiments"],
    "hydra": ["experiments"],
    "omegaconf": ["experiments"],
    "wandb": ["experiments"],
}
TORCH_FREE = ["llm_backend/api.py", "llm_backend/engines/mock.py", "llm_backend/engines/replay.py"]
TORCH_FREE += ["llm_backend/reward/engine.py", "llm_backend/chat/format.py"]
TORCH_FREE += ["llm_backend/chat/template.py"]

SOURCES = sorted(path for folder in FOLDERS for path in (PACKAGE / folder).rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Absolute names, those of our own with `treeshare.` in front."""
    package = ["treeshare", *path.relative_to(PACKAGE).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_follow_the_arrows(path):
    relative = path.relative_to(PACKAGE).as_posix()
    folder = relative.split("/")[0]
    for name in imported_modules(path):
        if name.startswith("treeshare."):
            ours = name.removeprefix("treeshare.")
            assert any(ours == p or ours.startswith(p + ".") for p in ALLOWED[folder]), (
                f"{relative} imports {name}"
            )
        elif (library := name.split(".")[0]) in OWNERS:
            owners = OWNERS[library]
            assert any(relative == o or relative.startswith(o + "/") for o in owners), (
                f"{relative} imports {library}"
            )
            assert library != "torch" or relative not in TORCH_FREE, f"{relative} imports torch"


def test_every_folder_is_covered():
    assert {path.relative_to(PACKAGE).parts[0] for path in SOURCES} <= set(ALLOWED)


def test_kernels_has_no_init():
    """With one, `kernels` would shadow Hugging Face's package of that name from this root."""
    assert not (PACKAGE / "kernels" / "__init__.py").exists()


@pytest.mark.parametrize(
    "statement",
    [
        "import transformers",
        "from transformers.models.qwen3.modeling_qwen3 import Qwen3ForCausalLM",
    ],
    ids=["transformers", "qwen3"],
)
def test_transformers_imports_from_the_root(statement):
    """`python -c` puts the root, and so our kernels/ folder, first on the path."""
    done = subprocess.run(
        [sys.executable, "-c", statement], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "modules",
    [
        "treeshare.search.scheduler, treeshare.search.context, treeshare.tasks.task",
        "treeshare.experiments.run",  # which says how PyTorch's threads wait, before it is loaded
    ],
    ids=["search", "run"],
)
def test_torch_is_not_loaded_by(modules):
    code = f"import sys, {modules}; assert not {{'torch', 'transformers'}} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# The rooms of each folder, every one after those that it may import.
ROOMS = {
    "kernels": ["", "planning", "attention", "layers", "sampling"],
    "llm_backend": [
        *("", "cache", "chat", "sampling", "model", "runtime", "speculative", "reward", "engines"),
    ],
    "search": ["", "evaluators", "policies/simulation", "policies"],
    "tasks": [
        *("", "sandbox", "arithmetic", "blocksworld", "crosswords", "graph_of_thoughts"),
        *("math", "reasoning_gym"),
    ],
    "experiments": [
        *("results", "loggers", "runs", "", "reports", "viewer", "export"),
        *("check_model", "bench", "bench/attention", "bench/decode", "soak", "training"),
    ],
}
MOST_FILES = 12  # of a room


def room_of(path: Path) -> str:
    """The room of a file, by its path from the root: `search/policies`."""
    return path.relative_to(PACKAGE).parent.as_posix()


def rooms_imported(path: Path) -> set[str]:
    """The rooms that a file of ours imports from."""
    files = (PACKAGE.joinpath(*name.split(".")[1:]) for name in imported_modules(path))
    found = set()
    for file in files:
        if file.is_relative_to(PACKAGE) and file != PACKAGE:
            # The last parts of a name may be a class and its attribute.
            while not file.with_suffix(".py").exists() and not file.is_dir():
                file = file.parent
            found.add((file if file.is_dir() else file.parent).relative_to(PACKAGE).as_posix())
    return found


@pytest.mark.parametrize("folder", ROOMS)
def test_rooms_import_only_those_below(folder):
    """A folder's own `__init__.py` only hands its names on, so it may import all rooms."""
    order = [f"{folder}/{room}".rstrip("/") for room in ROOMS[folder]]
    assert {room_of(path) for path in SOURCES if room_of(path).startswith(folder)} == set(order)
    for path in SOURCES:
        if (
            path.relative_to(PACKAGE).parts[0] == folder
            and path != PACKAGE / folder / "__init__.py"
        ):
            below = order[: order.index(room_of(path)) + 1]
            upwards = rooms_imported(path) & set(order) - set(below)
            assert not upwards, f"{path.relative_to(PACKAGE)} imports from {upwards}"


def test_rooms_are_small():
    names = [room_of(path) for path in SOURCES if path.name not in {"__init__.py", "__main__.py"}]
    assert {room: names.count(room) for room in names if names.count(room) > MOST_FILES} == {}
