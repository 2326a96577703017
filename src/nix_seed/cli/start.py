"""Where the command starts: what it needs takes a moment to load, and people change their minds."""

import os
import signal
import sys
import time
from typing import Final, NoReturn

_SOON: Final = 1.0  # seconds until who pressed Ctrl-C hears why the command has not ended
_GRACE: Final = 5.0  # seconds until it ends whatever it waits for


def main() -> None:
    """Run the command line. Until it is loaded, Ctrl-C ends the process as it ends any other's."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # else it is ignored, as behind nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        handler = _interrupt
    from nix_seed.cli.main import main as run

    signal.signal(signal.SIGINT, handler)
    run()


def _interrupt(_number: int, _frame: object) -> NoReturn:
    """Raise ``KeyboardInterrupt``, and end the process even where threads go on waiting."""
    import threading

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    threading.Thread(target=_end, name="interrupt", daemon=True).start()
    raise KeyboardInterrupt


def _end() -> None:
    time.sleep(_SOON)
    sys.stderr.write("\nstopping what is under way; Ctrl-C again ends it at once\n")
    sys.stderr.flush()
    time.sleep(_GRACE - _SOON)
    sys.stderr.write("interrupted\n")
    sys.stderr.flush()
    os._exit(128 + signal.SIGINT)
