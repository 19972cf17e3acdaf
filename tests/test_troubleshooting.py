"""The messages of docs/troubleshooting.md are those of the program."""

import ast
import re
import shlex
import sys

import pytest
import torch
from places import ROOT

from treeshare.experiments.results.directory import exclusive
from treeshare.experiments.run import main

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
FOLDERS = ["experiments", "kernels", "llm_backend", "search", "tasks", "treeshare"]
FOREIGN = {  # messages of the system, of PyTorch and of Matplotlib
    "No space left on device",
    "No module named 'triton'",
    "Matplotlib is building the font cache",
    "... is not a writable directory",
}
POLICY = """class Policy:
    async def search(self, ctx):
        return 1 / 0

class Unmade:
    def __init__(self):
        width = 4
        raise ValueError("width must be odd")
"""
WORKING = POLICY.replace("1 / 0", "await ctx.expand(ctx.root)")


def transcripts():
    """The commands of the page, each with the last line that it prints."""
    for block in re.findall(r"^```console\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        yield from re.findall(r"^\$ treeshare (.+)\n(treeshare: .+)$", block, re.MULTILINE)


def quoted():
    """The messages that stand in bold at the beginning of an entry."""
    for entry in re.findall(r"^- (\*\*.*?)(?=\n- |\n\n)", PAGE, re.DOTALL | re.MULTILINE):
        yield from re.findall(r"\*\*`(.+?)`\*\*", " ".join(entry.split()))


def templates():
    """The texts of the package, with `\\0` for the parts that differ."""
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            if any(parent.is_symlink() for parent in path.parents):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    yield "".join(
                        getattr(part, "value", "\0") if isinstance(part, ast.Constant) else "\0"
                        for part in node.values
                    )
                elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield re.sub(r"%[sd]", "\0", node.value)


TEMPLATES = list(templates())


def output_of(arguments, monkeypatch, capfd):
    monkeypatch.setattr(sys, "argv", ["treeshare", *arguments])
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")
    code = main()
    return code, capfd.readouterr().err


@pytest.mark.parametrize(("command", "said"), list(transcripts()), ids=lambda text: text[:60])
def test_commands_say_what_the_page_says(command, said, tmp_path, monkeypatch, capfd):
    if "--describe" not in command and "engine=mock" not in command and torch.cuda.is_available():
        pytest.skip("it would load a model")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "broken.py").write_text(POLICY)
    (tmp_path / "edited.py").write_text(WORKING)
    for module in ("broken", "edited"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    arguments = shlex.split(command)

    def run():
        return output_of(arguments, monkeypatch, capfd)

    def finished_run():
        assert output_of([*arguments, "task.limit=2"], monkeypatch, capfd)[0] == 0
        (path,) = tmp_path.glob("*/*/*/*/*/results.jsonl")
        return path

    if "edited" in command:
        finished_run()
        (tmp_path / "edited.py").write_text(WORKING.replace("(ctx.root)", "(ctx.root, 2)"))
        monkeypatch.delitem(sys.modules, "edited")
        code, error = run()
    elif "busy" in command:
        path = finished_run()
        path.write_text(path.read_text().partition("\n")[0] + "\n")
        with exclusive(path.parent):
            code, error = run()
    elif "damaged" in command:
        path = finished_run()
        path.write_text(path.read_text().partition("\n")[0] + "\n{}\n")
        code, error = run()
    else:
        code, error = run()
    assert code == (1 if "puzzles failed" in said else 2)
    pattern = ".*".join(map(re.escape, said.split("...")))
    assert re.fullmatch(pattern, error.splitlines()[-1])


@pytest.mark.parametrize("message", [message for message in quoted() if message not in FOREIGN])
def test_quoted_messages_stand_in_the_code(message):
    parts = [part.strip() for part in message.split("...") if part.strip(" ,;:")]
    said = [line for _, line in transcripts()]
    assert any(all(part in text for part in parts) for text in [*TEMPLATES, *said])


def test_the_page_is_read():
    assert len(list(transcripts())) > 20 and len(set(quoted()) - FOREIGN) > 15
    assert set(quoted()) >= FOREIGN
