"""The user's own files behind a run are found, and edits that may change results are seen."""

import importlib
import sys
from types import ModuleType

import pytest

from treeshare.experiments.results.sources import main_name, source_digests, user_sources

POLICY = {"search": {"_target_": "my_policies.Mine"}}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes modules of the user, which are then imported anew."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def to(**texts):
        for name, text in texts.items():
            (tmp_path / f"{name}.py").write_text(text)
        for name in set(sys.modules) - before:
            del sys.modules[name]
        importlib.invalidate_caches()

    yield to
    to()


def test_imports_are_followed_through_files_packages_and_functions(write, tmp_path):
    write(
        my_policies="import helpers, json, numpy\nfrom pack.deep import thing\n",
        helpers="def f():\n    from late import x\n    import treeshare.search\n",
        late="",
    )
    package = {
        "__init__": "",
        "deep": "from . import beside\nfrom .beside import *\n",
        "beside": "import my_policies\n",
        "unused": "",
    }
    (tmp_path / "pack").mkdir()
    for name, text in package.items():
        (tmp_path / f"pack/{name}.py").write_text(text)
    found = user_sources({"search": {"_target_": "my_policies.Mine"}, "name": "helpers.py"})
    names = ["helpers.py", "late.py", "my_policies.py"]
    assert list(found) == [*names, "pack/__init__.py", "pack/beside.py", "pack/deep.py"]
    assert found["pack/deep.py"] == tmp_path / "pack/deep.py"
    assert "my_policies" not in sys.modules  # nothing was imported


def test_only_names_of_classes_and_of_loaded_modules_count(write):
    write(my_policies="", helpers="")
    config = {"task": {"path": "helpers.csv", "cost": "my_policies.cost"}}
    assert user_sources(config) == {}
    importlib.import_module("my_policies")
    assert list(user_sources(config)) == ["my_policies.py"]
    assert list(user_sources({"parts": [{"a": {"_target_": "helpers.A"}}]})) == ["helpers.py"]


def test_a_class_inside_a_function_counts_by_its_file(write):
    write(my_policies="")
    config = {"search": {"_target_": "my_policies.main.<locals>.Mine"}}
    assert list(user_sources(config)) == ["my_policies.py"]


@pytest.mark.parametrize("target", ["treeshare.search.Beam", "json.JSONEncoder", "numpy.array"])
def test_our_own_and_installed_files_do_not_count(target):
    assert user_sources({"search": {"_target_": target}}) == {}


TEXT = '''"""About."""
import math  # a comment


class Mine:
    """What it is."""

    def search(self, x=1):
        """Search."""
        return [x, "text", None]
'''


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("# a comment", "# another"),
        ("\n\n\nclass", "\nclass"),
        ('"""About."""', '"""About it."""'),
        ('        """Search."""\n', ""),
        ('[x, "text", None]', "[ x, 'text',\n None ]"),
    ],
)
def test_comments_layout_and_docstrings_do_not_count(old, new, write):
    write(my_policies=TEXT)
    before = source_digests(POLICY)
    write(my_policies=TEXT.replace(old, new))
    assert source_digests(POLICY) == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("x=1", "x=2"),
        ("x=1", "x=True"),
        ("[x, ", "[x], "),
        ("x, ", ""),
        ("None]", "0]"),
        ("import math", "import cmath"),
        ("search(", "find("),
        ("return [", "yield ["),
    ],
)
def test_any_change_of_the_code_counts(old, new, write):
    write(my_policies=TEXT)
    before = source_digests(POLICY)
    write(my_policies=TEXT.replace(old, new))
    assert source_digests(POLICY) != before


def test_docstrings_count_where_one_of_the_files_reads_them(write):
    helpers = "def prompt_of(kind):\n    return kind.__doc__\n"
    write(my_policies=f"import helpers\n{TEXT}", helpers=helpers)
    before = source_digests(POLICY)
    write(my_policies=f"import helpers\n{TEXT}".replace("Search.", "Find."))
    assert source_digests(POLICY) != before


@pytest.mark.parametrize("text", ["class Mine(:", "x = " + "(" * 500 + ")" * 500, "\0"])
def test_a_file_that_is_no_python_counts_by_its_bytes(text, write):
    write(my_policies=text)
    before = source_digests(POLICY)
    write(my_policies=f"{text} ")
    assert source_digests(POLICY) != before


def test_a_file_that_was_edited_after_it_was_loaded_counts_as_it_was(write, tmp_path):
    """As in a multirun during which the user edits it: the process goes on with the old code."""
    write(my_policies="one = 1\n")
    module = importlib.import_module("my_policies")
    before = source_digests(POLICY)
    (tmp_path / "my_policies.py").write_text("another = 22\n")
    assert source_digests(POLICY) == before
    importlib.reload(module)
    assert source_digests(POLICY) != before


@pytest.fixture
def notebook(monkeypatch):
    """Runs cells in a `__main__` without a file, as a notebook has it."""
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)

    def run(*cells):
        for cell in cells:
            exec(compile(cell, "<cell>", "exec"), vars(main))
        return source_digests({"search": {"_target_": "__main__.Mine"}})

    return run


CELLS = (
    "import math\nWIDTH = 3\nNAMES = ['c']\nfound = []\n",
    "def helper(x):\n    return x + 1\n\ndef unused():\n    return 1\n",
    """
class Mine:
    size = 2
    other = "one text"

    def search(self):
        def inner():
            return helper(WIDTH), NAMES

        found.append(inner())
        return math.pi in {"a", "b"}
""",
)


@pytest.mark.parametrize(
    ("old", "new", "counts"),
    [
        ("x + 1", "x + 2", True),
        ("WIDTH = 3", "WIDTH = 4", True),
        ("size = 2", "size = 3", True),
        ('"a", "b"', '"a", "d"', True),
        ("['c']", "['d']", True),
        ("one text", "a text", True),
        ("found = []", "found = [1]", False),
        ("return 1", "return 2", False),
        ("x + 1", "x + 1  # more", False),
    ],
)
def test_code_of_a_notebook_counts_with_what_it_uses(old, new, counts, notebook):
    before = notebook(*CELLS)
    assert list(before) == ["Mine"] and notebook(*CELLS) == before
    after = notebook(*(cell.replace(old, new) for cell in CELLS))
    assert (after != before) == counts


def test_a_program_has_the_name_under_which_it_can_be_imported(monkeypatch, tmp_path):
    main = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert main_name() == "__main__"
    main.__file__ = str(tmp_path / "my_policies.py")
    (tmp_path / "my_policies.py").write_text("import json\n")
    assert main_name() == "my_policies"
    assert list(user_sources({"search": {"_target_": "__main__.Mine"}})) == ["my_policies.py"]
