"""Idioms and archaic words stay out of docstrings, comments and pages.

The readers' first language is often not English. `docs/log/` is left out: its entries stay as they
were written on their day.
"""

import ast
import io
import re
import tokenize

import pytest
from places import ROOT

ABOUT_KNOWING = "say what the module does, or which import is forbidden"
INSTEAD = {  # a pattern that must not come back -> what to write
    r"\bknows? (nothing|no|neither|not)\b": ABOUT_KNOWING,
    r"\bdoes not know\b": ABOUT_KNOWING,
    r"(?<!ask/)(?<!ask and )\b(told|tells?|telling)\b": "is given, says, distinguishes",
    r"\blest\b": "so that ... not",
    r"\baffairs?\b": "say who decides it",
    r"\bin hand\b": "running, held, known",
    r"\bso many\b": "that number of, each",
    r"\bbeside\b": "next to, with, in addition to",
    r"\bhas it\b": "say what it has",
    r"\bmay not have\b": "must not have, cannot have",
    r"\ball the same\b": "nevertheless, equally",
    r"\b(is|are|was|were) to be had\b": "is available, exists",
    r"\bwhose \w+ it is\b": "name the owner",
    r"\bto hand\b": "available",
    r"\bthere(of|by|upon)\b|\bwhere(by|upon)\b": "of it, by this, by which",
    r"\b(naught|nought|amiss|oftener|hitherto)\b": "nothing, wrong, more often, until now",
    r"\bby heart\b|\bno wonder\b|\bgreater part\b": "use a plain word",
    r"\bof an evening\b|\bgood deal\b|\ba good part\b": "use a plain word",
}
FOLDERS = ["conf", "experiments", "kernels", "llm_backend", "search", "tasks", "treeshare"]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def prose_of_code(text):
    """The docstrings and comments of a module: (line, text) of each."""
    for node in ast.walk(ast.parse(text)):
        is_constant = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if is_constant and isinstance(node.value.value, str):
            yield node.lineno, node.value.value
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def prose_of_page(text):
    """The lines of a page, without code: (line, text) of each."""
    is_code = False
    for number, line in enumerate(text.splitlines(), 1):
        is_code ^= line.startswith("```")
        if not is_code:
            yield number, re.sub(r"`[^`]*`|\]\([^)]*\)", "", line)


def found_in(path, prose):
    """One line for each word that must not come back."""
    for number, text in prose:
        for pattern, instead in INSTEAD.items():
            for match in re.finditer(pattern, " ".join(text.split()), re.IGNORECASE):
                yield f"{path.relative_to(ROOT)}:{number}: {match[0]!r}; write: {instead}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_and_comments_are_plain(folder):
    found = []
    for path in sorted((ROOT / folder).rglob("*.py")):
        if not any(parent.is_symlink() for parent in path.parents):
            found += found_in(path, prose_of_code(path.read_text()))
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_page_is_plain(path):
    found = list(found_in(path, prose_of_page(path.read_text())))
    assert not found, "\n".join(found)


def test_the_words_are_found():
    code = '"""Knows no tensors."""\n\n\ndef f():\n    # lest it end\n    return "told"\n'
    page = "It is told beside the rest.\n\n```\nlest\n```\n`so many`\n"
    path = ROOT / "x.py"
    assert len(list(found_in(path, prose_of_code(code)))) == 2
    assert len(list(found_in(path, prose_of_page(page)))) == 2
