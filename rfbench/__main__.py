"""`python -m rfbench`, which is also what `torchrun -m rfbench` starts."""

from rfbench.cli import main

if __name__ == "__main__":
    main()
