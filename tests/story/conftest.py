"""``pytest tests/story --renew`` writes the golden texts anew; look at them before you commit."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--renew", action="store_true", help="write the story's golden texts anew")
