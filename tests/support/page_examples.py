"""The examples of a page, run as they stand through the command that the page names."""

import re
import subprocess
import sys


def example(page, name):
    """The code that the page tells to save as `name`, and the arguments of the command it gives."""
    after = page[page.index(f"`{name}`") :]
    command = re.search(r"`treeshare (.+?)`", after)[1]
    code = re.search(r"```python\n(.*?)```", after, re.DOTALL)[1]
    return code, command.split()


def run_example(page, name, directory, *arguments):
    """The finished process, on the mock engine, with the example saved in `directory`."""
    code, command = example(page, name)
    (directory / name).write_text(code)
    return subprocess.run(
        [sys.executable, "-m", "treeshare.experiments.run", *command, "engine=mock", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        check=False,
    )
