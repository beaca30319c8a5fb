"""`python -m coyo_labeler STAGE key=value …`: the command line."""

import sys

from coyo_labeler.cli import main

if __name__ == "__main__":
    sys.exit(main())
