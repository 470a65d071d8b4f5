"""Where the command begins, also as `python -m enroll`."""

import os
import signal

if os.getpid() == 1:
    # In a container the kernel drops signals that the first process does not handle: a run that
    # missed its SIGTERM would be killed in the end.
    signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))
    signal.signal(signal.SIGHUP, lambda number, _frame: os._exit(128 + number))
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # While modules are loaded Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from enroll.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
