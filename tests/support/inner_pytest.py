"""A pytest that a test runs."""

import os


def inner_environment(**more: str) -> dict[str, str]:
    """An environment without what the outer pytest was told, and with ``more``."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return outer | more
