"""`vibevoice-asr monitor` on real services: on a terminal that a program reads, and as text."""

import asyncio
import re
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from http_file_server import FileHost
from rich.console import Console
from service_process import PATIENCE_S, Server, free_port

from sidecar.cli import run
from sidecar.cli.backends import ServiceTarget
from sidecar.plugins.monitor.sections import (
    MonitorSection,
    MonitorSnapshot,
    create_monitor_client,
    sections,
    table,
)

GB = 1 << 30
ONCE = "monitor", "--once", "--timeout", str(PATIENCE_S)


def printed(text: str) -> dict[tuple[str, str], str]:
    """What `--once` says: section and name, and the value."""
    lines = [re.split(r" {2,}", line, maxsplit=2) for line in text.splitlines()]
    return {(section, name): value for section, name, value in lines}


def test_monitor_once_prints_a_table_of_the_services_figures_and_errors(
    server: Server, voice: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    server.post(voice).raise_for_status()
    assert server.client.get("/nowhere").status_code == 404
    told = server.client.get("/metrics.json").json()["vibevoice"]
    assert run([*ONCE, "--server", server.url]) == 0
    said = capsys.readouterr()
    rows = printed(said.out)
    assert said.err == ""
    assert rows["service", "address"] == server.url
    assert rows["service", "state"] == "ok"
    assert rows["queue", "done"] == f"{told['jobs']['done']:g}"
    assert rows["queue", "waiting"] == f"0 of {told['jobs']['limit']}"
    assert rows["live", "sessions"].endswith(f"of {told['live']['limit']}")
    assert rows["engine files", "engine"].startswith("scripted")
    assert "MB" in rows["machine", "service resident"]
    assert float(rows["queue", "rtf"].split()[0]) > 0
    wrong = {name: value for (section, name), value in rows.items() if section == "errors"}
    assert any(name.startswith("http 4") for name in wrong)


def test_monitor_without_a_service_says_so_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["monitor", "--once", "--server", f"http://127.0.0.1:{free_port()}"]) == 1
    said = capsys.readouterr()
    rows = printed(said.out)
    assert rows["service", "state"] == "no answer"
    assert rows["service", "/metrics"].startswith("no answer")
    assert said.err == "vibevoice-asr: Nothing answers there.\n"


@dataclass
class Asked(FileHost):
    """Notes who asks for what, and answers ``/health`` only."""

    keys: dict[str, str | None] = field(default_factory=dict)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition("?")[0]
        self.keys[path] = request.headers.get("authorization")
        self.reply(request, 200 if path == "/health" else 404, b'{"status": "ok"}', {})


def test_monitor_sends_its_token_to_the_service_and_not_to_the_metrics_url(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Asked() as service, Asked() as other:
        elsewhere = f"{other.url}/metrics.json"
        words = ["--server", service.url, "--metrics-url", elsewhere, "--token", "secret"]
        assert run([*ONCE, *words]) == 0
    assert service.keys == dict.fromkeys(("/health", "/system", "/v1/jobs"), "Bearer secret")
    assert other.keys == {"/metrics.json": None}
    assert ("service", "/metrics") in printed(capsys.readouterr().out)


def test_monitor_without_textual_says_what_to_install(
    server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.startswith("textual")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "sidecar.plugins.monitor.screen", raising=False)
    monkeypatch.setitem(sys.modules, "textual", None)
    assert run(["monitor", "--server", server.url]) == 78
    assert "pip install -e '.[monitor]'" in capsys.readouterr().err


@asynccontextmanager
async def shown(address: str) -> AsyncIterator[tuple[Any, Any]]:
    """The application on a terminal of its own, and what drives it."""
    pytest.importorskip("textual")
    from sidecar.plugins.monitor.screen import MonitorApp

    async with create_monitor_client(ServiceTarget(address), None, None, PATIENCE_S) as looking:
        app = MonitorApp(looking, 0.1)
        async with app.run_test(size=(120, 60)) as pilot:
            yield app, pilot


def panels(app: Any) -> dict[str, str]:
    """What stands in each section."""
    console = Console(width=100)
    found = {}
    for panel in app.query("Static.section"):
        with console.capture() as taken:
            console.print(panel.content)
        found[str(panel.border_title)] = taken.get()
    return found


async def until(pilot: Any, condition: Callable[[], bool]) -> None:
    while not condition():
        await pilot.pause(0.05)


async def test_screen_follows_the_service_unless_paused(server: Server, voice: bytes) -> None:
    def done(app: Any) -> int:
        lines = map(str.split, panels(app)["queue"].splitlines())
        return next(int(line[1]) for line in lines if line[:1] == ["done"])

    async with shown(server.url) as (app, pilot):
        await until(pilot, lambda: {"service", "live", "queue", "machine"} <= set(panels(app)))
        assert "scripted" in panels(app)["engine files"]
        assert app.sub_title == server.url
        before = done(app)
        await asyncio.to_thread(server.post, voice)
        await until(pilot, lambda: done(app) > before)
        await pilot.press("p")
        assert app.sub_title.endswith(", paused")
        await until(pilot, lambda: not app.fetching)
        paused_at = done(app)
        await asyncio.to_thread(server.post, voice)
        app.refresh_unless_paused()
        assert not app.fetching, "while it pauses its clock makes it look at nothing"
        assert done(app) == paused_at
        await pilot.press("r")
        await until(pilot, lambda: done(app) > paused_at)
        await pilot.press("q")
    assert app.return_code == 0


async def test_screen_says_that_the_service_does_not_answer() -> None:
    address = f"http://127.0.0.1:{free_port()}"
    async with shown(address) as (app, pilot):
        await until(pilot, lambda: "service" in panels(app))
        assert app.sub_title == f"{address} does not answer"
        (panel,) = [one for one in app.query("Static.section") if one.border_title == "service"]
        assert panel.has_class("warns")
        assert "no answer" in panels(app)["service"]


async def test_monitor_quits_while_it_waits_for_an_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes connections, and says nothing
        async with shown(f"http://127.0.0.1:{silent.getsockname()[1]}") as (app, pilot):
            await asyncio.to_thread(silent.accept)
            assert panels(app) == {}
            await pilot.press("q")
    assert app.return_code == 0


def named(found: list[MonitorSection], title: str) -> MonitorSection:
    (section,) = [one for one in found if one.title == title]
    return section


def test_monitor_computes_rates_from_two_snapshots_and_none_across_a_restart() -> None:
    def picture(at: float, seconds: float) -> MonitorSnapshot:
        live = {"sessions": 2, "limit": 2, "audio_seconds": seconds}
        return MonitorSnapshot("http://x", at, {"status": "ok"}, {"vibevoice": {"live": live}})

    now, before = picture(12.0, 90.0), picture(10.0, 50.0)
    live = named(sections(now, before), "live")
    assert dict(live.rows)["sound in a second"] == "20.00 s"
    assert live.warns, "nobody else gets in"
    assert dict(named(sections(now), "live").rows)["sound in a second"] == "-"
    anew = dict(named(sections(picture(14.0, 1.0), now), "live").rows)
    assert anew["sound in a second"] == "-", "it was started anew meanwhile"


def test_monitor_warns_if_planned_memory_is_more_than_the_gpu_has() -> None:
    def machine(reserved: int) -> MonitorSection:
        engine = {"role": "files", "reserved_bytes": reserved, "on_gpu": True, "state": "ready"}
        gpu = {"index": 0, "name": "H", "memory_used_mib": 4096, "memory_total_mib": 8192}
        metrics = {"vibevoice": {"engines": [engine]}}
        return named(sections(MonitorSnapshot("", 0.0, {}, metrics, {"gpus": [gpu]})), "machine")

    rows = dict(machine(6 * GB).rows)
    assert rows["GPU 0 used"].endswith("4.00 GB of 8.00 GB")
    assert rows["GPU 0 used"].count("█") == 5
    assert rows["GPU 0 planned"].endswith("6.00 GB of 8.00 GB")
    assert not machine(6 * GB).warns
    assert machine(9 * GB).warns


def test_running_job_is_shown_with_its_remaining_time() -> None:
    job = {
        "id": "0123456789", "state": "running", "duration": 1200.0, "position": None,
        "progress": {"fraction": 0.02}, "estimated_remaining_seconds": 251.3,
    }  # fmt: skip
    now = MonitorSnapshot("", 0.0, {}, {}, jobs={"jobs": [job]})
    assert ("01234567", "running, 2%, about 251 s left, 1200 s") in named(
        sections(now), "jobs"
    ).rows


async def test_monitor_does_not_list_ended_jobs(server: Server, voice: bytes) -> None:
    ended = await asyncio.to_thread(server.submit, voice)
    await asyncio.to_thread(server.wait_state, ended, "done")
    async with create_monitor_client(
        ServiceTarget(server.url, None), None, None, PATIENCE_S
    ) as client:
        listed = (await client.fetch_snapshot()).jobs["jobs"]
    assert ended not in [one["id"] for one in listed]


def test_monitor_lists_only_errors_by_kind_and_frequency_and_warns_of_new_ones() -> None:
    own = {
        "jobs": {"failed_by_code": {"audio_empty": 2}},
        "live": {"ended_by_reason": {"done": 9, "left": 3, "idle": 1}, "refused_by_code": {}},
        "http": {"by_status": {"200": 50, "404": 1, "503": 7}},
        "grpc": {"by_status": {"OK": 5, "UNAVAILABLE": 4}},
    }
    now = MonitorSnapshot("", 0.0, {}, {"vibevoice": own})
    before = MonitorSnapshot("", 0.0, {}, {"vibevoice": own | {"jobs": {}}})
    found = named(sections(now, before), "errors")
    assert found.warns
    assert not named(sections(now, now), "errors").warns, "nothing is new"
    assert found.rows == [
        ("job audio_empty", "2"), ("live ended idle", "1"), ("http 503", "7"), ("http 404", "1"),
        ("grpc UNAVAILABLE", "4"),
    ]  # fmt: skip


def test_monitor_shows_metrics_of_another_server_by_their_names() -> None:
    metrics = {"active_sessions": 3, "rtf_max": 0.25, "error_counts": {"UNAUTHENTICATED": 2}}
    text = table(sections(MonitorSnapshot("http://x", 0.0, {"status": "error"}, metrics)))
    rows = printed(text)
    assert rows["decoding", "active sessions"] == "3"
    assert rows["decoding", "rtf max"] == "0.250"
    assert rows["errors", "grpc UNAUTHENTICATED"] == "2"
    assert named(
        sections(MonitorSnapshot("http://x", 0.0, {"status": "error"}, metrics)), "service"
    ).warns
