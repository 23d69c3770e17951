"""The page of examples/captions in a real browser, against a real service that needs a token."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from browser_visitor import Visitor
from service_process import (
    REPOSITORY,
    Server,
    StartServer,
    counting_listener,
    free_port,
    wait_until,
)

pytestmark = pytest.mark.slow
TOKEN = "a token that no page gets"


@contextmanager
def site(server: Server, port: int, **environment: str) -> Iterator[str]:
    """The address of the page, at ``port``; more of its ``environment``."""
    environment = {
        **os.environ,
        **environment,
        "CAPTIONS_PORT": str(port),
        "CAPTIONS_SERVICE": f"http://127.0.0.1:{server.port}",
        "VIBEVOICE_TOKEN": TOKEN,
    }
    command = [sys.executable, str(REPOSITORY / "examples/captions/server.py")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def opens(visitor: Visitor, address: str) -> None:
    from selenium.common.exceptions import WebDriverException

    def serves() -> bool:
        try:
            visitor.driver.get(address)
        except WebDriverException:  # it is starting
            return False
        return bool(visitor.driver.find_elements("id", "start"))

    wait_until(serves, "the page is served")
    visitor.driver.get_log("browser")


def test_captions_stop_without_an_exception_and_start_again(
    visitor: Visitor, start_server: StartServer
) -> None:
    port = free_port()
    server = start_server(token=TOKEN, allowed_origins=f"http://127.0.0.1:{port}")
    with site(server, port) as address:
        opens(visitor, address)
        for _ in range(2):
            visitor.driver.find_element("id", "start").click()
            visitor.sees("#finals li b", "Speaker_0")
            visitor.driver.find_element("id", "stop").click()
            visitor.sees("#state", "Ended after")
            visitor.sees("#start:enabled")


def test_captions_from_an_origin_that_is_not_allowed_show_the_cause_without_an_exception(
    visitor: Visitor, start_server: StartServer
) -> None:
    with site(start_server(token=TOKEN), free_port()) as address:
        opens(visitor, address)
        visitor.driver.find_element("id", "start").click()
        visitor.sees("#state", "A page needs its origin allowed there, too.")
        visitor.sees("#start:enabled")
        assert not [line for line in visitor.said() if "Uncaught" in line]
        visitor.log.clear()  # that it is refused is meant


def test_token_of_captions_goes_to_no_proxy_of_the_environment(server: Server) -> None:
    port = free_port()
    with (
        counting_listener() as (proxy, asked),
        site(server, port, http_proxy=f"http://127.0.0.1:{proxy}", no_proxy="") as address,
    ):
        wait_until(lambda: answers(address), "the page is served")
        assert httpx.post(f"{address}/ticket").json()["ticket"]
        assert asked == []


def answers(address: str) -> bool:
    try:
        return httpx.get(f"{address}/settings").is_success
    except httpx.TransportError:  # it is starting
        return False
