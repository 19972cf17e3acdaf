"""The import arrows of the design: which folder may import which, and who owns which library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

FOLDERS = ["conf", "experiments", "kernels", "llm_backend", "search", "tasks"]

# Folder -> the modules of ours it may import (prefixes).
ALLOWED = {
    "conf": [],
    "kernels": ["kernels"],
    "tasks": ["tasks"],
    "llm_backend": ["llm_backend", "kernels"],
    "search": ["search", "tasks.task", "llm_backend.api"],
    "experiments": ["experiments", "search", "llm_backend", "tasks", "kernels"],
}

# Library -> the files or folders that may import it.
OWNERS = {
    "networkx": ["search/graph.py"],
    "transformers": [
        *("llm_backend/model/model.py", "llm_backend/model/random_models.py"),
        *(
            "llm_backend/model/loading.py",
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
TORCH_FREE += ["llm_backend/reward/engine.py"]

SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imported_modules(path: Path) -> set[str]:
    """Absolute names, those of our own with `treeshare.` in front."""
    package = ["treeshare", *path.relative_to(ROOT).parent.parts]
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*above, *([node.module] if node.module else [])])
            names |= {f"{module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_follow_the_arrows(path):
    relative = path.relative_to(ROOT).as_posix()
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
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} <= set(ALLOWED)


def test_kernels_has_no_init():
    """With one, `kernels` would shadow Hugging Face's package of that name from this root."""
    assert not (ROOT / "kernels" / "__init__.py").exists()


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
