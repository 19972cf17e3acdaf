"""Finds the user's own source files that a run depends on, and computes their digests.

These are the files that hold the classes named in a configuration, and the modules that these files
import. Files of this package, of installed packages and of Python's own library do not count.
"""

from __future__ import annotations

import ast
import inspect
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping
from hashlib import sha256
from importlib.machinery import ModuleSpec, PathFinder
from itertools import takewhile
from pathlib import Path
from types import CodeType
from typing import Any

from .digests import digest_of

_PACKAGE = Path(__file__).resolve().parents[2]
_FOLDERS = ("conf", "experiments", "kernels", "llm_backend", "search", "tasks", "treeshare")
_INSTALLED = ("stdlib", "platstdlib", "purelib", "platlib")
_FOREIGN = tuple(
    f"{path}{os.sep}"
    for path in {
        *(str(_PACKAGE / folder) for folder in _FOLDERS),
        *(os.path.realpath(sysconfig.get_path(kind)) for kind in _INSTALLED),
    }
)


def is_users_file(file: str) -> bool:
    """Whether a file is outside this package, installed packages and Python's own library."""
    path = os.path.realpath(file)
    is_installed = {"site-packages", "dist-packages"} & set(path.split(os.sep))
    return not is_installed and not path.startswith(_FOREIGN) and os.path.isfile(path)


def user_sources(config: Mapping[str, Any]) -> dict[str, Path]:
    """Find the user's own files behind a configuration.

    Imports are read from the text of the files, so that those inside functions are found as well
    and nothing is imported. A module whose name is put together while the program runs is not
    found.

    Args:
        config: nested mappings and lists. The objects that a `_target_` names count, and other
            texts that name an object of a module that is loaded.

    Returns:
        The files by a name that does not depend on where they are, such as `my_policies.py` or
        `my_package/helpers.py`, in alphabetical order.
    """
    found: dict[str, Path] = {}
    waiting = [name for text in _object_names(config) for name in _with_parents(text)]
    seen: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module in seen:
            continue
        seen.add(module)
        path = _file_of(module)
        if path is not None and is_users_file(str(path)):
            module = main_name() if module == "__main__" else module
            found[_shown(module, path)] = path
            waiting += _imports(module, path)
    return dict(sorted(found.items()))


def source_digests(config: Mapping[str, Any]) -> dict[str, str]:
    """Compute the digests of the user's own code behind a configuration.

    Comments and the layout of the text do not count. Docstrings do not count either, unless one of
    the files reads `__doc__` or calls `getdoc`. A class that was defined in a notebook has no file:
    its methods count, and what they use of the notebook's other definitions.

    Returns:
        Digests by the name of the file (see `user_sources`) or of the class.

    Raises:
        OSError: a file cannot be read.
    """
    texts = {name: path.read_bytes() for name, path in user_sources(config).items()}
    reads_docstrings = any(b"__doc__" in text or b"getdoc" in text for text in texts.values())
    digests = {
        name: _as_loaded(name, _of_text(text, with_docstrings=reads_docstrings))
        for name, text in texts.items()
    }
    if _file_of("__main__") is None:
        for text in _object_names(config):
            module, _, name = text.partition(".")
            defined = getattr(sys.modules["__main__"], name.partition(".")[0], None)
            if module == "__main__" and defined is not None:
                digests[name] = _of_definition(defined)
    return digests


_used: dict[str, tuple[ModuleSpec, str]] = {}  # by file, what was loaded, and its digest then


def _as_loaded(name: str, digest: str) -> str:
    """The digest of a file when this process first used it; it may have been edited since.

    A module that was reloaded has another specification, and counts as it is now.
    """
    module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    spec = getattr(sys.modules.get(module), "__spec__", None)
    if spec is None:
        return digest
    if name not in _used or _used[name][0] is not spec:
        _used[name] = (spec, digest)
    return _used[name][1]


def main_name() -> str:
    """The name under which the program that was started can be imported: `my_policies`.

    It is `__main__` in a notebook or at a prompt.
    """
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    file = _file_of("__main__")
    return spec.name if spec is not None else file.stem if file else "__main__"


def _object_names(node: Any, key: str = "") -> Iterator[str]:
    """The texts of a configuration that name objects of modules."""
    if isinstance(node, str):
        if key == "_target_" or node.partition(".")[0] in sys.modules:
            yield node
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield from _object_names(value, name)
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _object_names(value)


def _with_parents(dotted: str) -> list[str]:
    """`a.b.C` -> `a`, `a.b`, `a.b.C`; of `a.f.<locals>.C` those of `a.f`."""
    parts = list(takewhile(str.isidentifier, dotted.split(".")))
    return [".".join(parts[:i]) for i in range(1, len(parts) + 1)]


def _file_of(module: str) -> Path | None:
    if module == "__main__":
        file = getattr(sys.modules[module], "__file__", None)
    else:
        spec = _spec(module)
        file = spec.origin if spec is not None and spec.has_location else None
    return Path(file) if file and os.path.isfile(file) else None  # else it was typed in


def _spec(module: str) -> ModuleSpec | None:
    """Find a module without importing it."""
    if module in sys.modules:
        return getattr(sys.modules[module], "__spec__", None)
    parent = module.rpartition(".")[0]
    if not parent:
        return PathFinder.find_spec(module)
    above = _spec(parent)
    if above is None or above.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(module, list(above.submodule_search_locations))


def _shown(module: str, path: Path) -> str:
    folders = module.split(".")
    if path.stem != "__init__":
        folders.pop()
    return "/".join([*folders, path.name])


def _imports(module: str, path: Path) -> Iterator[str]:
    """The modules that a file imports, their parents, and imported names that may be modules."""
    try:
        nodes = list(ast.walk(ast.parse(path.read_bytes())))
    except (SyntaxError, ValueError, RecursionError):  # a compiled module, or nested too deeply
        return
    package = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _with_parents(alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            origin = ".".join([*above, *([node.module] if node.module else [])])
            yield from _with_parents(origin)
            yield from (f"{origin}.{alias.name}" for alias in node.names)


def _of_text(text: bytes, *, with_docstrings: bool) -> str:
    """A digest of what a file says. Of a file that is not Python, every byte counts."""
    digest = sha256()
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError):
        return sha256(text).hexdigest()[:32]
    if not with_docstrings:
        _drop_docstrings(tree)
    for node in ast.walk(tree):  # level by level; the numbers of children make it unambiguous
        fields = {
            name: _leaf(value) for name, value in ast.iter_fields(node) if value not in ([], None)
        }
        digest.update(repr((type(node).__name__, fields)).encode())
    return digest.hexdigest()[:32]


def _leaf(value: Any) -> Any:
    """A field of a node, with `...` in the place of nodes, which follow on the next level."""
    if isinstance(value, list):
        return [_leaf(item) for item in value]
    return ... if isinstance(value, ast.AST) else value


def _drop_docstrings(tree: ast.AST) -> None:
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(ast.Constant(str())), *rest]:
                    node.body = rest


def _of_definition(defined: Any) -> str:
    """A digest of a class or a function of a notebook, and of what it uses of the notebook.

    It is computed from compiled code, so it begins with the version of Python.
    """
    notebook = vars(sys.modules["__main__"])
    digest, waiting, seen = sha256(), [defined], set[int]()
    while waiting:
        one = waiting.pop()
        one = inspect.unwrap(getattr(one, "__func__", getattr(one, "fget", one)))
        if isinstance(one, (*_PLAIN, *_CHANGEABLE)):
            digest.update(digest_of(one).encode())
            continue
        if id(one) in seen:
            continue
        seen.add(id(one))
        if isinstance(one, CodeType):
            values = [c for c in one.co_consts if not isinstance(c, CodeType)]
            digest.update(one.co_code + digest_of([one.co_names, values]).encode())
            waiting += [c for c in one.co_consts if isinstance(c, CodeType)]
            used = {name: notebook[name] for name in one.co_names if name in notebook}
            # a list may be what the code collects, unless its name says that it is a constant
            waiting += [
                value
                for name, value in used.items()
                if name.isupper() or not isinstance(value, _CHANGEABLE)
            ]
        elif getattr(one, "__module__", None) != "__main__":
            continue  # it is not of the notebook
        elif inspect.isclass(one):
            members = {name: vars(one)[name] for name in sorted(vars(one)) if name not in _ABOUT}
            digest.update(digest_of([one.__qualname__, *members]).encode())
            waiting += [*members.values(), *one.__bases__]
        elif inspect.isfunction(one):
            waiting += [one.__code__, one.__defaults__, one.__kwdefaults__]
    return f"{sys.version_info.major}.{sys.version_info.minor} {digest.hexdigest()[:32]}"


_PLAIN = (bool, int, float, str, bytes, tuple, frozenset, type(None))
_CHANGEABLE = (list, dict, set)
_ABOUT = {
    *("__module__", "__doc__", "__dict__", "__weakref__", "__annotations__"),
    *("__firstlineno__", "__static_attributes__"),
}
