"""The parts of any address, to name a place by. What is connected to is read by the registry's."""

from urllib.parse import SplitResult, urlsplit


def split_address(text: str) -> SplitResult:
    """Return the parts of *text*, of any scheme; an address that cannot be read has none."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  (read late, and refused late, by Python's own)
    except ValueError:
        return SplitResult("", "", "", "", "")
    return parts
