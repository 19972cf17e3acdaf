"""The import root: it is light, its names load at first use, and it is found in every place."""

import ast
import importlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT

import treeshare

PACKAGE = ROOT / "treeshare"
WITHOUT_THE_INSTALL = (
    "import sys; sys.meta_path = [f for f in sys.meta_path if 'Editable' not in str(f)]; "
)


def python(*arguments, cwd=ROOT):
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, check=False
    )


def test_the_import_loads_no_library():
    code = (
        "import sys; before = set(sys.modules); import treeshare; "
        "print({name.partition('.')[0] for name in set(sys.modules) - before})"
    )
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    loaded = ast.literal_eval(done.stdout)
    assert loaded - sys.stdlib_module_names == {"treeshare"}


@pytest.mark.parametrize("name", [name for name in treeshare.__all__ if name != "__version__"])
def test_every_name_loads(name):
    value = getattr(treeshare, name)
    assert value.__doc__
    assert name in dir(treeshare)


def test_type_checkers_see_the_names_that_load():
    tree = ast.parse((PACKAGE / "__init__.py").read_text())
    (block,) = (
        node
        for node in tree.body
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    )
    homes = {}
    for line in block.body:
        module = "treeshare" + (f".{line.module}" if line.level else line.module[9:])
        for alias in line.names:
            assert alias.asname == alias.name
            homes[alias.name] = getattr(importlib.import_module(module), alias.name)
    assert homes == {
        name: getattr(treeshare, name) for name in treeshare.__all__ if name != "__version__"
    }


def test_other_names_are_no_attributes():
    with pytest.raises(AttributeError, match="module 'treeshare' has no attribute 'sovle'"):
        _ = treeshare.sovle


def test_it_runs_uninstalled_from_the_root():
    code = (
        f"{WITHOUT_THE_INSTALL} import treeshare, treeshare.kernels.planning.forest; "
        "from treeshare.search import ToTBFS; print(treeshare.__file__)"
    )
    done = python("-c", code)
    assert done.stdout.strip() == str(PACKAGE / "__init__.py"), done.stderr


def test_it_runs_where_links_are_small_text_files(tmp_path):
    """So Git writes them on Windows, and so they lie in a ZIP download."""
    (tmp_path / "treeshare").mkdir()
    for path in PACKAGE.iterdir():
        if path.is_symlink():
            (tmp_path / "treeshare" / path.name).write_text(f"../{path.name}")
            shutil.copytree(
                path,
                tmp_path / path.name,
                ignore=shutil.ignore_patterns("__pycache__", "*.safetensors"),
            )
        elif path.is_file():
            shutil.copy(path, tmp_path / "treeshare")
    code = (
        f"{WITHOUT_THE_INSTALL} import treeshare, treeshare.kernels.planning.forest; "
        "from treeshare.search import ToTBFS; print(treeshare.search.__file__)"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.stdout.strip() == str(tmp_path / "search" / "__init__.py"), done.stderr


@pytest.mark.parametrize(
    "command",
    [
        [sys.executable, "-m", "treeshare"],
        [sys.executable, "-m", "treeshare.experiments.run"],
        [Path(sys.executable).with_name("treeshare")],
    ],
    ids=["python -m treeshare", "python -m treeshare.experiments.run", "treeshare"],
)
def test_the_command_says_its_version(command, tmp_path):
    done = subprocess.run(
        [*command, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"treeshare {treeshare.__version__}\n")


def test_python_m_treeshare_is_the_command(tmp_path):
    done = python("-m", "treeshare", "engine=mock", "search=io", "task.limit=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "puzzles         1 of 1" in done.stdout
