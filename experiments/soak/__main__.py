"""Start the command: `python -m treeshare.experiments.soak`."""

import sys

from .main import main

sys.exit(main())
