"""Where the command starts: what it needs takes a moment to load, and people change their minds."""

import signal


def main() -> None:
    """Run the command line. Until it is loaded, Ctrl-C ends the process as it ends any other's."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # else it is ignored, as behind nohup
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nix_seed.cli.main import main as run

    signal.signal(signal.SIGINT, handler)
    run()
