"""What ties the processes of a run to the torchrun that started them. Imports nothing heavy."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of linux/prctl.h


def end_with_launcher() -> None:
    """Have SIGTERM sent to this process when torchrun is gone: it then saves and ends.

    A signal that torchrun does not know, such as SIGUSR1, ends it alone; its processes would train
    on, and hold folder and GPUs. To be called as early as possible: of a torchrun that is gone
    already nothing is heard.
    """
    if sys.platform == "linux" and "TORCHELASTIC_RUN_ID" in os.environ:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
