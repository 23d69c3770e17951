"""What a run did not test, in one block at its end, and the commands that install what is missing.

A skip for something that can be installed has the command in its reason, as `missing` writes it:
``nginx is missing (sudo apt-get install nginx)``.
"""

import re
from collections import Counter

import pytest

DEBIAN, EXTRAS, PYTHON, MAKE = "sudo apt-get install", "pip install -e", "pip install", "make"
INSTALLERS = (DEBIAN, EXTRAS, PYTHON, MAKE)
"""Commands that `missing` may name, in the order of the block."""
_COMMAND = re.compile(rf" \(({'|'.join(INSTALLERS)}) ([^()]+)\)$")


def missing(what: str, packages: str, installer: str = DEBIAN) -> str:
    """Return the reason of a skip: ``what`` is missing, and the packages have it."""
    return f"{what} is missing ({installer} {packages})"


def missing_extra(package: str) -> str:
    """Return the reason of a skip: a Python package that an extra has is missing."""
    return missing(package, "'.[dev]'", EXTRAS)


class NotTested:
    """A pytest plugin: the block."""

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Write the block, if a test was skipped."""
        reasons = Counter(
            report.longrepr[2].removeprefix("Skipped: ")
            for report in terminalreporter.stats.get("skipped", ())
            if isinstance(report.longrepr, tuple)
        )
        if reasons:
            terminalreporter.section("not tested", sep="-")
            for line in block(reasons):
                terminalreporter.write_line(line)


def block(reasons: Counter[str]) -> list[str]:
    """Return the lines of the block: each reason with its number of tests, then one command for
    each way of installing what is missing."""
    lines, wanted = [], dict[str, set[str]]()
    for reason, tests in sorted(reasons.items(), key=lambda one: (-one[1], one[0])):
        if found := _COMMAND.search(reason):
            wanted.setdefault(found[1], set()).update(found[2].split())
        lines.append(f"{tests:5} {'tests' if tests > 1 else 'test '}  {_COMMAND.sub('', reason)}")
    commands = [f"{one} {' '.join(sorted(wanted[one]))}" for one in INSTALLERS if one in wanted]
    return [*lines, *(["To test them:", *(f"    {one}" for one in commands)] if commands else [])]
