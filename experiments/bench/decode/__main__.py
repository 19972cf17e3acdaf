"""Start the command: `python -m treeshare.experiments.bench.decode`."""

import sys

from .main import main

sys.exit(main())
