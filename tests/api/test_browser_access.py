"""A real browser: a stranger's page gets nothing, whatever it tries; the host's own page does."""

from typing import Any

from browser_visitor import STRANGER, Visitor, script
from service_process import Server, StartServer, free_port

HOST = "tauri.localhost"


def results_of_page(browser: Visitor, name: str, port: int) -> dict[str, Any]:
    """What a page of a name gets that tries everything on a service at ``port``. That page is what
    the service says to who comes by this name, which is not its own."""
    browser.driver.get(f"http://{name}:{port}/")
    browser.sees("body", "host_not_allowed")
    told = dict(browser.driver.execute_async_script(script("try_everything"), port))
    assert len(told) == 11
    for rebound in ("rebound", "rebound post"):
        assert told[rebound].startswith("403")
        assert "host_not_allowed" in told.pop(rebound)
    return told


def ids_of(server: Server) -> set[str]:
    """Of the jobs that are there; what others left is forgotten by and by."""
    return {job["id"] for job in server.jobs()}


def test_page_of_a_foreign_origin_reads_nothing_and_starts_no_job_in_a_real_browser(
    browser: Visitor, server: Server
) -> None:
    before, jobs = server.health()["precision"], ids_of(server)
    told = results_of_page(browser, STRANGER, server.port)
    assert told.pop("form") in ("unreadable", "empty")
    assert {told.pop("no-cors"), told.pop("blind post")} <= {"opaque", "refused"}
    assert set(told.values()) == {"refused"}, told
    assert server.health()["precision"] == before, "the form changed nothing"
    assert ids_of(server) <= jobs, "no post became a job"


def test_page_of_an_allowed_origin_reads_answers_in_a_real_browser(
    browser: Visitor, start_server: StartServer
) -> None:
    """The same attempts from a page that may: what the stranger missed was there to be had."""
    port = free_port()
    start_server(port=port, allowed_origins=f"http://{HOST}:{port}")
    told = results_of_page(browser, HOST, port)
    assert told["fetch"].startswith('200{"status":"ok"')
    assert told["jobs"] == '200{"jobs":[],"next":null}'
    assert told["post"].startswith("4")
    assert "audio_undecodable" in told["post"] or "audio_format" in told["post"]
