"""A real browser: a stranger's page gets nothing, whatever it tries; the host's own page does.

The stranger's name leads to this machine by the browser's own resolver rules, as a rebound DNS
entry would lead it.
"""

from __future__ import annotations

import http.server
import json
import shutil
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from service_process import PATIENCE_S, Server

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
STRANGER, HOST = "evil.example", "tauri.localhost"

TRIES = """
const base = "http://127.0.0.1:PORT", rebound = "http://NAME:PORT";
const told = {};
async function attempt(name, work) {
  try { told[name] = await work(); } catch (error) { told[name] = "refused"; }
}
async function text(response) {
  return response.type === "opaque" ? "opaque" : response.status + await response.text();
}
function form() {
  const data = new FormData();
  data.append("audio", new Blob(["RIFF"]), "a.wav");
  return data;
}
const asked = (place, options) => async () => text(await fetch(place, options));
function submitted() {
  return new Promise(done => {
    const frame = document.createElement("iframe");
    frame.name = "target";
    frame.onload = () => {
      let seen = "unreadable";
      try { seen = frame.contentDocument.body.innerText || "empty"; } catch (error) {}
      done(seen);
    };
    document.body.append(frame);
    const sent = document.createElement("form");
    Object.assign(sent, {
      action: base + "/reload-model", method: "POST", enctype: "text/plain", target: "target",
    });
    const field = document.createElement("input");
    field.name = '{"precision": "int8", "x": "'; field.value = '"}';
    sent.append(field); document.body.append(sent); sent.submit();
  });
}
function socket() {
  return new Promise((done, refused) => {
    const live = new WebSocket("ws://127.0.0.1:PORT/live");
    live.onopen = () => done("open");
    live.onerror = refused;
  });
}
function image() {
  return new Promise((done, refused) => {
    const picture = new Image();
    picture.onload = () => done("loaded"); picture.onerror = refused;
    picture.src = base + "/v1/jobs";
  });
}
(async () => {
  const json = {"Content-Type": "application/json"}, path = '{"audio_path": "/etc/hostname"}';
  const blind = {mode: "no-cors"}, post = {method: "POST"};
  await attempt("fetch", asked(base + "/health"));
  await attempt("jobs", asked(base + "/v1/jobs"));
  await attempt("no-cors", asked(base + "/v1/jobs", blind));
  await attempt("post", asked(base + "/transcribe", {...post, body: form()}));
  await attempt("blind post", asked(base + "/transcribe", {...post, ...blind, body: form()}));
  await attempt("json", asked(base + "/transcribe", {...post, headers: json, body: path}));
  await attempt("rebound", asked(rebound + "/health"));
  await attempt("rebound post", asked(rebound + "/transcribe", {...post, body: form()}));
  await attempt("socket", socket);
  await attempt("image", image);
  await attempt("form", submitted);
  await fetch("/told", {method: "POST", body: JSON.stringify(told)});
})();
"""


class Site:
    """A web server that gives out one page, and hears what it has to tell."""

    def __init__(self) -> None:
        self.page = ""
        self.told: dict[str, Any] = {}
        self.heard = threading.Event()
        site = self

        class Answer(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = site.page.encode()
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_POST(self) -> None:
                site.told = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                self.send_response(204)
                self.end_headers()
                site.heard.set()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def tries(self, port: int, name: str) -> None:
        """The page is one that tries everything on a service at ``port``."""
        script = TRIES.replace("PORT", str(port)).replace("NAME", name)
        self.page = f"<!doctype html><body><script>{script}</script></body>"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def visit(name: str, site: Site, profile: Path) -> dict[str, Any]:
    """What the page of a site gets, opened under a name."""
    browser = subprocess.Popen(
        [
            CHROMIUM or "",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            f"--user-data-dir={profile}",
            f"--host-resolver-rules=MAP {name} 127.0.0.1",
            f"http://{name}:{site.port}/",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert site.heard.wait(PATIENCE_S), "the browser told nothing"
    finally:
        browser.terminate()
        browser.wait(PATIENCE_S)
    return site.told


def ids_of(server: Server) -> set[str]:
    """Of the jobs that are there; what others left is forgotten by and by."""
    return {job["id"] for job in server.jobs()}


@pytest.fixture
def site() -> Iterator[Site]:
    running = Site()
    yield running
    running.close()


@pytest.fixture
def chromium() -> None:
    if CHROMIUM is None:
        warnings.warn("SKIPPED: no Chromium here, so no real browser was turned away", stacklevel=1)
        pytest.skip("no Chromium")


@pytest.mark.usefixtures("chromium")
def test_a_strangers_page_gets_nothing_whatever_it_tries(
    server: Server, site: Site, tmp_path: Path
) -> None:
    before, jobs = server.health()["precision"], ids_of(server)
    site.tries(server.port, STRANGER)
    told = visit(STRANGER, site, tmp_path / "profile")
    assert len(told) == 11
    assert told.pop("form") in ("unreadable", "empty")
    assert {told.pop("no-cors"), told.pop("blind post")} <= {"opaque", "refused"}
    assert set(told.values()) == {"refused"}, told
    assert server.health()["precision"] == before, "the form changed nothing"
    assert ids_of(server) <= jobs, "no post became a job"


@pytest.mark.usefixtures("chromium")
def test_the_hosts_own_page_gets_its_answers_from_the_same_browser(
    start_server: Callable[..., Server], site: Site, tmp_path: Path
) -> None:
    """The same attempts from a page that may: what the stranger missed was there to be had."""
    server = start_server(allowed_origins=f"http://{HOST}:{site.port}")
    site.tries(server.port, HOST)
    told = visit(HOST, site, tmp_path / "profile")
    assert told["fetch"].startswith('200{"status":"ok"')
    assert told["jobs"] == '200{"jobs":[],"next":null}'
    assert told["post"].startswith("4")
    assert "audio_undecodable" in told["post"] or "audio_format" in told["post"]
    assert told["rebound"] == told["rebound post"] == "refused", "by its name, which is not ours"
