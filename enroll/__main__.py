"""Where the command begins, also as `python -m enroll`."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # While modules are loaded Ctrl-C ends the process without a traceback.
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from enroll.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
