"""`python scripts/reproduce.py ...` is `rfbench grid ...`, under its earlier name."""

import sys

from rfbench.cli import main

if __name__ == "__main__":
    main(["grid", *sys.argv[1:]], prog_name="rfbench")
