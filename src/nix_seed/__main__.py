"""``python -m nix_seed``."""

from nix_seed.cli.main import main

main()
