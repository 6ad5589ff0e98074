"""`python -m lamina`, and what torchrun starts."""

import sys

from lamina.cli.entry import main

if __name__ == "__main__":
    sys.exit(main())
