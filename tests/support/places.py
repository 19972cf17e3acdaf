"""Where tests find the checkout, the recorded data and the parts that a user would write."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "treeshare"  # links to the folders of the root; an sdist has no others
DATA = Path(os.environ.get("TREESHARE_DATA", ROOT.parent / "shared/data"))
PARTS = ROOT / "tests/experiments/parts"
