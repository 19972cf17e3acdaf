"""`python -m treeshare` is the `treeshare` command."""

import sys

from treeshare.experiments.run import main

if __name__ == "__main__":
    sys.exit(main())
