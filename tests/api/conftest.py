"""A browser for tests of pages, and services on a person's own machine."""

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser_driver import IS_HERE, LACKING
from browser_visitor import Visitor, spoken
from own_machine import start_own as start_own
from page_actions import HOLD, goes_to, kept
from service_process import Server
from systems import IN_WINE

SHARED = ("server", "slow", "moonshine", "talks")
"""Services that more than one test has."""


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Visitor]:
    """One browser for all tests; its microphone hears two who speak in turn."""
    if IN_WINE and not os.environ.get("VIBEVOICE_TEST_PAGES"):
        pytest.skip("not_in_wine: by chance Chromium's driver hangs there, once a tab is closed")
    if not IS_HERE:
        warnings.warn(f"SKIPPED: {LACKING}", stacklevel=1)
        pytest.skip(LACKING)
    microphone = tmp_path_factory.mktemp("microphone") / "spoken.wav"
    microphone.write_bytes(spoken())
    visitor = Visitor(microphone)
    yield visitor
    visitor.driver.quit()


@pytest.fixture
def visitor(browser: Visitor, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """The one browser, with nothing of the test before, and nothing blocked in this one; services
    that tests share have no recordings of others."""
    names = [one for one in SHARED if one in request.fixturenames]
    shared: list[Server] = [request.getfixturevalue(one) for one in names]
    for one in shared:
        one.client.delete("/v1/data").raise_for_status()
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
    for one in shared:
        goes_to(one, None)
        one.client.delete("/v1/data").raise_for_status()


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service that hears a minute in a second, goes only as far as `goes_to` says, and keeps
    recordings."""
    home = tmp_path_factory.mktemp("slow")
    heard = {"scripted_speed": 60, "scripted_hold": home / HOLD}
    with Server(home, people=1, **heard, **kept(home)) as running:
        yield running


@pytest.fixture(scope="module")
def moonshine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service with an engine that hears words."""
    with Server(tmp_path_factory.mktemp("moonshine"), engine="moonshine") as running:
        yield running
