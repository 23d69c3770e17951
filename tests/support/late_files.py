"""Files of tests that are collected when they are run: to import and to collect all of them takes
each process of pytest-xdist twenty seconds, of which it needs its part."""

import functools
import gc
import os
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

_DEAR = {
    "torch": r"^\s*(import|from) (torch|transformers|memory_simulation|tiny_voxtral)\b"
    r"|^(\w+ = )?pytest\.importorskip\(\"torch\"",
    "Chromium": r"(visitor|browser): Visitor",
    "PostgreSQL": r"journal: str|postgres_cluster|bench\.deployment",
}
"""What takes seconds to import or to start, and the files that use it: one process runs them."""
_USES = {name: re.compile(pattern, re.MULTILINE).search for name, pattern in _DEAR.items()}


def shared_by(source: str) -> str:
    """Return what a file of tests uses of `_DEAR`, or nothing."""
    return next((name for name, uses in _USES.items() if uses(source)), "")


def register(config: pytest.Config) -> None:
    """Collect late in runs of pytest-xdist of all tests, or of all fast ones."""
    of_all = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if of_all and not config.option.keyword and config.option.markexpr in ("", "not slow"):
        if "PYTEST_XDIST_WORKER" in os.environ:
            config.pluginmanager.register(LateFiles())
        elif config.getoption("numprocesses", None):
            config.pluginmanager.register(Progress())


class WholeFile(pytest.Item):
    """All tests of a file, as pytest-xdist sees them: one, with the name of the test that runs."""

    running: str | None = None

    @property
    def nodeid(self) -> str:
        """The test that runs, or the file; what stands before `::` is run by one process."""
        return self.running or self._file

    @functools.cached_property
    def _file(self) -> str:
        few = self.config.option.markexpr == "not slow"
        together = shared_by(self.path.read_text("utf-8")) if few else ""
        return f"{together or self.parent.nodeid}::{self.path}"

    def runtest(self) -> None:
        """Do nothing: `LateFiles` runs its tests."""

    def tests(self) -> list[pytest.Item]:
        """Collect its tests."""
        gc.disable()
        try:
            tests = list(self.session.genitems(self.parent))
            given = {"session": self.session, "config": self.config, "items": tests}
            self.config.hook.pytest_collection_modifyitems(**given)
        finally:
            gc.enable()
        return tests


class LateModule(pytest.Module):
    """A file that is not read before its `WholeFile` runs."""

    _is_due = False

    def collect(self) -> Iterator[pytest.Item | pytest.Collector]:
        """Yield the whole file first, and its tests after that."""
        if self._is_due:
            yield from super().collect()
        else:
            self._is_due = True
            yield WholeFile.from_parent(self, name="whole")


class LateFiles:
    """A pytest plugin for the processes of pytest-xdist."""

    def pytest_pycollect_makemodule(
        self, module_path: Path, parent: pytest.Collector
    ) -> LateModule:
        """Leave a file unread."""
        return LateModule.from_parent(parent, path=module_path)

    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> bool | None:
        """Run the tests of a file."""
        if not isinstance(item, WholeFile):
            return None
        tests = item.tests()
        if not tests:  # the file before left what this one would have needed
            item.session._setupstate.teardown_exact(nextitem)
        for test, following in pairwise([*tests, nextitem]):
            item.running = test.nodeid
            item.config.hook.pytest_runtest_protocol(item=test, nextitem=following)
            if item.session.shouldfail or item.session.shouldstop:
                break
        return True


class Progress:
    """A pytest plugin for the process that shows results, which does not know how many there will
    be: the share is that of files."""

    def __init__(self) -> None:
        self._files, self._begun, self._tests = 0, set[str](), 0

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: list[str]) -> None:
        """Note the number of files."""
        self._files = len(ids)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Guess the number of tests."""
        self._begun.add(report.nodeid.partition("::")[0])
        self._tests += report.when == "setup"
        self.session.testscollected = max(
            self._tests + 1, self._tests * self._files // len(self._begun)
        )

    def pytest_sessionstart(self, session: pytest.Session) -> None:
        """Know the session."""
        self.session = session
