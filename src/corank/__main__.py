"""`python -m corank`, for launchers that start a module."""

import sys

from corank.cli import main

if __name__ == "__main__":
    sys.exit(main())
