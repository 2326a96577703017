"""Words from elsewhere (an image, a flake, a registry, a log) that may be shown to people.

Escape sequences steer a terminal, and signs that turn the direction of text make it read as
something else. A line that begins with ``::``, or has ``##[`` anywhere, is a command to GitHub's
runner, which reads what any step prints.

Which texts are web addresses that a document may carry as a link (RFC 3986).

The parts of any address, to name a place by. What is connected to is read by the registry's.
"""

import re
from urllib.parse import SplitResult, urlsplit

_COMMAND = re.compile(r"^(\s*)::", re.MULTILINE)
# What Python, a terminal or the runner might take for a line's end, but for the one that is.
_BREAKS = re.compile(r"\r\n|[\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
# Who logs in by an address, which as a path has one slash less; but no usual name of a program,
# and no example of ours.
_LOGIN = re.compile(r"(?<=:/)(/?)(?!git@|user:password@)[^/\s@'\"]+@")
_SECRET = re.compile(
    r"([?&](?:[\w.-]*(?:token|password|secret|signature)|sig|key)=)[^&\s'\"]+", re.IGNORECASE
)
_LONGEST_WORD = 1000


def printable(text: str) -> str:
    """Keep lines and tabs; everything else that cannot be printed becomes a sign that it was."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


def safe_text(text: str) -> str:
    """Return *text*, of any number of lines, such that printing it does nothing but show it.

    Of what logs in by an address nothing is shown.
    """
    flat = without_secrets(printable(_BREAKS.sub(" ", text)))
    return _COMMAND.sub(r"\1: :", flat).replace("##[", "## [")


def without_secrets(text: str) -> str:
    """Return *text* without users, passwords and tokens in its addresses."""
    return _SECRET.sub(r"\1…", _LOGIN.sub(r"\1…@", text)) if ":/" in text else text


def shortened(text: str) -> str:
    """Return *text* with the middle of endless words left out, which no one reads."""
    if len(text) <= _LONGEST_WORD:
        return text
    return re.sub(rf"\S{{{_LONGEST_WORD},}}", lambda word: f"{word[0][:200]}…{word[0][-50:]}", text)


def safe_line(text: str) -> str:
    """Return *text* the same way in one line: what it says cannot pass for another line."""
    return safe_text(text.replace("\r\n", " ").replace("\n", " "))


_WEB = re.compile(
    r"(?:https?|ftp)://[A-Za-z0-9.-]+(?::[0-9]{1,5})?"
    r"(?:[/?#](?:[A-Za-z0-9._~!$&'()*+,;=:@/?#-]|%[0-9A-Fa-f]{2})*)?\Z"
)
_LONGEST = 2000


def is_web_address(text: str) -> bool:
    """Whether *text* is one, and in plain spelling: no user, no blanks, nothing but ASCII."""
    return len(text) <= _LONGEST and text.count("#") <= 1 and _WEB.match(text) is not None


def split_address(text: str) -> SplitResult:
    """Return the parts of *text*, of any scheme; an address that cannot be read has none."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  (read late, and refused late, by Python's own)
    except ValueError:
        return SplitResult("", "", "", "", "")
    return parts
