"""The archives that a user installs: what they hold, and that they run."""

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from code_blocks import python_blocks
from places import ROOT

IGNORED = shutil.ignore_patterns("__pycache__", "*.egg-info", ".hypothesis", "site")
BUILT_FROM = ["pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md"]
BUILT_FROM += ["CONTRIBUTING.md", "Makefile", "constraints.txt", "mkdocs.yml"]


def build(kind, source, out):
    """The path of the archive that setuptools makes, as pip would have it made."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(out)!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=source, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return out / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tmp_path_factory):
    """Built in a copy: setuptools leaves folders where it builds."""
    source = tmp_path_factory.mktemp("source")
    for name in BUILT_FROM:
        shutil.copy(ROOT / name, source)
    for folder in ("treeshare", "docs", "tests"):
        shutil.copytree(ROOT / folder, source / folder, ignore=IGNORED)
    return build("sdist", source, tmp_path_factory.mktemp("sdist"))


@pytest.fixture(scope="module")
def unpacked(sdist, tmp_path_factory):
    """The folder in the unpacked sdist."""
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    (top,) = folder.iterdir()
    return top


@pytest.fixture(scope="module")
def site(unpacked, tmp_path_factory):
    """The unpacked wheel, made from the sdist as package indexes' users make it."""
    out = tmp_path_factory.mktemp("wheel")
    with zipfile.ZipFile(build("wheel", unpacked, out)) as archive:
        archive.extractall(out / "site")
    return out / "site"


def files(top, folder=""):
    """The paths of a folder's files, from its top on; links are followed."""
    found = set()
    for path, folders, names in os.walk(top / folder, followlinks=True):
        folders[:] = [name for name in folders if name != "__pycache__"]
        found |= {str(Path(path, name).relative_to(top)) for name in names}
    return found


def test_the_wheel_holds_the_package_and_nothing_else(site):
    packed = {path for path in files(site) if ".dist-info/" not in path}
    assert packed == files(ROOT, "treeshare")


def test_the_sdist_holds_the_packages_once_and_what_the_tests_need(sdist):
    with tarfile.open(sdist) as archive:
        names = {one.name.partition("/")[2] for one in archive if one.isfile()}
    made_by_setuptools = {"PKG-INFO", "setup.cfg"}
    packed = {name for name in names if ".egg-info/" not in name} - made_by_setuptools
    source = files(ROOT, "treeshare") | files(ROOT, "docs") | files(ROOT, "tests")
    assert packed == source | set(BUILT_FROM)


def test_the_metadata_is_complete(site):
    (about,) = site.glob("*.dist-info/METADATA")
    text = about.read_text()
    for field in ("Author: ", "Keywords: ", "Classifier: ", "License-Expression: MIT"):
        assert f"\n{field}" in text
    version = (ROOT / "treeshare" / "__init__.py").read_text().partition('__version__ = "')[2]
    assert f"\nVersion: {version.partition(chr(34))[0]}\n" in text


def test_the_first_example_runs_from_the_wheel(site, tmp_path):
    (code, *_) = python_blocks((ROOT / "README.md").read_text())
    script = tmp_path / "first.py"
    script.write_text(
        f"import treeshare\nassert treeshare.__file__.startswith({str(site)!r})\n"
        + code.replace("limit=20", "limit=1")
    )
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "top-1 100.0%" in done.stdout
