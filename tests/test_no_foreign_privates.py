"""No module reads an attribute of another module's object whose name begins with an underscore.

A read of `x._name` is allowed where `x` is `self` or `cls`, and where a class of the same module
sets `_name`, since one instance may read another's. Attributes of libraries are listed by name.
"""

import ast
from pathlib import Path

import pytest
from places import ROOT

FOLDERS = ["treeshare", "experiments", "kernels", "llm_backend", "search", "tasks", "tests"]

LIBRARIES = {
    "_attn_implementation",  # transformers' configurations
    "_is_stateful",  # transformers' networks
    "_forward_hooks",  # torch.nn.Module
    "_forward_pre_hooks",
    "_fields",  # typing.NamedTuple
    "_replace",
    "_asdict",
    "_exit",  # os
}

EXCEPTIONS: dict[str, set[str]] = {}
"""Files with reads that are still to go, and the names that they read."""


def is_link(path: Path) -> bool:
    """Whether a file lies below treeshare/ only through a link to a folder of the root."""
    return any((ROOT / part).is_symlink() for part in path.relative_to(ROOT).parents)


FILES = sorted(
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if not is_link(path)
)


def foreign_privates(source: str) -> set[str]:
    """The names of private attributes that a module reads, and that no class of it sets."""
    tree = ast.parse(source)
    own = LIBRARIES | {name for node in ast.walk(tree) for name in names_set(node)}
    return {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr.startswith("_")
        and not node.attr.endswith("_")  # hooks of Python, Jupyter and hydra
        and not is_self(node.value)
        and node.attr not in own
    }


def names_set(node: ast.AST) -> set[str]:
    """The names of attributes that a statement in a class defines, or that it sets on `self`."""
    if isinstance(node, ast.Attribute):
        return {node.attr} if isinstance(node.ctx, ast.Store) and is_self(node.value) else set()
    if not isinstance(node, ast.ClassDef):
        return set()
    names = {part.name for part in node.body if isinstance(part, ast.FunctionDef)}
    for part in node.body:
        targets = part.targets if isinstance(part, ast.Assign) else [getattr(part, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Name) and node.id in ("self", "cls")


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_of_another_module_is_read(path):
    name = path.relative_to(ROOT).as_posix()
    assert foreign_privates(path.read_text()) == EXCEPTIONS.get(name, set())


def test_exceptions_are_files():
    assert {path.relative_to(ROOT).as_posix() for path in FILES} >= EXCEPTIONS.keys()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("x._a", {"_a"}),
        ("class A:\n def f(self, other):\n  self._a = other._a", set()),
        ("class A:\n def f(self, other):\n  return other._a", {"_a"}),
        ("self._a.b", set()),
        ("self.a._b", {"_b"}),
        ("x.__class__", set()),
        ("x._replace(a=1)", set()),
    ],
)
def test_what_is_found(source, found):
    assert foreign_privates(source) == found
