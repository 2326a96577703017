"""Run the installed program and look at what it says."""

import subprocess


def greet(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run the program with these arguments."""
    return subprocess.run(["greet", *arguments], capture_output=True, text=True, check=False)


assert greet("Hello", "Nix").stdout == "Hello, Nix!\n"
assert greet("Hello").returncode == 2
assert greet("Hello", "x" * 100).returncode == 2
