"""Start the command: `python -m treeshare.experiments.bench.attention`."""

import sys

from .main import main

sys.exit(main())
