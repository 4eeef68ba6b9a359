"""The command `rfbench`, also as `python -m rfbench`, and what `torchrun -m rfbench` starts."""

import sys


def main() -> None:
    """Run the command line; Ctrl-C is one line, also while modules are imported."""
    try:
        from rfbench.cli import main as command

        try:
            command()
        finally:  # the work is done: closing takes a moment, and has nothing to say of Ctrl-C
            import signal

            signal.signal(signal.SIGINT, signal.SIG_DFL)
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
