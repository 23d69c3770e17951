"""A browser for tests of pages, and services on a person's own machine."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_visitor import IS_HERE, LACKING, Visitor, spoken
from own_machine import start_own as start_own
from systems import IN_WINDOWS


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """One browser for all tests; its microphone hears two who speak in turn."""
    if IN_WINDOWS:
        pytest.skip("posix: Chromium")
    if not IS_HERE:
        warnings.warn(f"SKIPPED: {LACKING}", stacklevel=1)
        pytest.skip(LACKING)
    microphone = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    microphone.write_bytes(spoken())
    visitor = Visitor(microphone)
    yield visitor
    visitor.driver.quit()


@pytest.fixture
def visitor(browser: Visitor, tmp_path: Path) -> Iterator[Visitor]:
    """The one browser, with nothing of the test before, and nothing blocked in this one."""
    browser.folder = tmp_path
    browser.log.clear()
    browser.driver.get_log("browser")
    yield browser
    assert browser.wrong() == []
    for handle in browser.driver.window_handles[1:]:
        browser.driver.switch_to.window(handle)
        browser.driver.close()
    browser.driver.switch_to.window(browser.driver.window_handles[0])
    browser.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.forgets()
