"""Start the command: `python -m treeshare.experiments.training`."""

import sys

from .main import main

sys.exit(main())
