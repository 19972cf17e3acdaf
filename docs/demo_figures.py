"""Write what `make demo` prints into docs/demo.txt and the README: `make demo-figures`.

The figures are those of a run on this machine. tests/test_readme.py compares them with another run.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURES = ROOT / "docs" / "demo.txt"
README = ROOT / "README.md"
COMMAND = ["-m", "experiment=demo", "search=cot,tot_bfs"]  # the Makefile's target `demo`
BEGIN = "<!-- docs/demo.txt, by `make demo-figures` -->\n```\n"
END = "```\n<!-- end of docs/demo.txt -->\n"


def figures_of(output: str) -> str:
    """The part of the demo's output that is shown: from the tree search's table to the end.

    The run's directory is named by a digest of the configuration; `HASH` stands for it.
    """
    tables = output[output.index("game24 tot_bfs ") :]
    return re.sub(r"/[0-9a-f]{10}-seed", "/HASH-seed", tables)


def readme_block(readme: str) -> str:
    """The figures that the README shows."""
    return readme.partition(BEGIN)[2].partition(END)[0]


def main() -> None:
    """Run the demo and write its figures."""
    with tempfile.TemporaryDirectory() as directory:
        done = subprocess.run(
            [sys.executable, "-m", "treeshare.experiments.run", *COMMAND],
            cwd=directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
    figures = figures_of(done.stdout)
    FIGURES.write_text(figures)
    before, _, rest = README.read_text().partition(BEGIN)
    README.write_text(f"{before}{BEGIN}{figures}{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
