"""The command line. Loading it makes many objects and no circles among them."""

import gc

gc.set_threshold(100_000)
