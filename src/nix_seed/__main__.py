"""``python -m nix_seed``."""

from nix_seed.cli.start import main

main()
