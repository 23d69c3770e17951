"""The page at `/` as it goes over the wire: who gets it, with which headers, and by which link."""

import gzip
import re
import sys
from pathlib import Path

import httpx
import pytest
from pygments.lexers import JavascriptLexer
from pygments.token import Comment
from service_process import (
    REPOSITORY,
    Server,
    StartServer,
    check_problem,
    run_command,
    service_environment,
)

from sidecar import errors
from sidecar.api.page import FOLDER, PageFile, PageFiles
from sidecar.auth.authentication import (
    CODE_LIFETIME_S,
    MAX_CODES,
    MAX_CODES_PER_OWNER,
    OneTimeCodes,
)
from sidecar.storage.invitations import INVITATIONS

CLIENT = REPOSITORY / "clients/js/src"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
MOST_BYTES = 120_000
"""The promise: all of the page, compressed."""
TOKEN = "a-token-of-this-start-0123456789"


def test_root_returns_the_page_for_html_and_json_otherwise(server: Server) -> None:
    page = server.client.get("/", headers=HTML)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "accept" in page.headers["vary"].lower()
    for accepted in ("*/*", "application/json", ""):
        answer = server.client.get("/", headers={"Accept": accepted})
        assert answer.json()["service"] == "vibevoice-asr"
        assert "accept" in answer.headers["vary"].lower()


async def test_page_below_a_root_path_is_served_at_it() -> None:
    from sidecar.config.settings import Settings
    from sidecar.server.app import create_app

    app = create_app(Settings(engine="scripted"))
    transport = httpx.ASGITransport(app, root_path="/speech", client=("127.0.0.1", 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        page = await client.get("/speech/", headers=HTML)
    assert page.headers["content-type"] == "text/html; charset=utf-8"


def test_page_forbids_foreign_and_inline_content(server: Server) -> None:
    page = server.client.get("/", headers=HTML)
    policy = dict(
        part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["frame-ancestors"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert "http" not in page.headers["content-security-policy"]
    assert not re.search(r"<script(?![^>]*src=)|<style|\son\w+=|style=", page.text)
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
    for address in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert address.startswith("/page/")
        found = server.client.get(address)
        assert found.status_code == 200
        assert "immutable" in found.headers["cache-control"]
        assert found.headers["x-content-type-options"] == "nosniff"


def test_page_has_at_most_120_kb_compressed_and_its_etag_returns_304(server: Server) -> None:
    files = PageFiles()
    sizes = [
        len(file.compressed)
        for name in files
        if (file := files.get(files.digest, name)) is not None
    ]
    assert sum(sizes) + len(files.front.compressed) <= MOST_BYTES
    page = server.client.get("/", headers=HTML)
    assert page.headers["content-encoding"] == "gzip"
    again = {**HTML, "If-None-Match": page.headers["etag"]}
    assert server.client.get("/", headers=again).status_code == 304
    plain = server.client.get("/", headers={**HTML, "Accept-Encoding": "identity"})
    assert plain.text == page.text == gzip.decompress(files.front.compressed).decode()


@pytest.mark.parametrize(
    "path", ["/page/0123456789abcdef/app.js", "/page/x", "/page/{digest}/../api.py",
             "/page/{digest}/nothing.js", "/page/{digest}/index.html"],
)  # fmt: skip
def test_address_of_no_page_file_returns_404(path: str, server: Server) -> None:
    response = server.client.get(path.replace("{digest}", PageFiles().digest))
    check_problem(response, 404, "not_found")


def test_page_serves_exactly_the_files_of_the_published_javascript_client() -> None:
    files, sources = PageFiles(), sorted(CLIENT.iterdir())
    served = [name for name in files if name.startswith("client/")]
    assert served == [f"client/{path.name}" for path in sources]
    for path in sources:
        file = files.get(files.digest, f"client/{path.name}")
        assert file is not None
        assert file.body == PageFile.of(path.name, path.read_bytes()).body


def tokens(script: bytes) -> list[tuple[str, int]]:
    """What of a script runs, and in which line each of it stands."""
    found, number = [], 1
    for kind, text in JavascriptLexer(stripnl=False).get_tokens(script.decode()):
        if kind not in Comment and text.strip():
            found.append((text, number))
        number += text.count("\n")
    return found


def test_page_serves_its_scripts_without_comments_and_all_that_runs_in_its_line() -> None:
    files = PageFiles()
    scripts = {path.relative_to(FOLDER).as_posix(): path for path in FOLDER.rglob("*.js")}
    scripts |= {f"client/{path.name}": path for path in CLIENT.glob("*.js")}
    assert {name for name in files if name.endswith(".js")} == set(scripts)
    for name, path in scripts.items():
        file = files.get(files.digest, name)
        assert file is not None
        assert tokens(file.body) == tokens(path.read_bytes()), name
        assert not re.search(rb"^\s*/\*\*", file.body, re.MULTILINE), name


def test_only_comments_that_begin_a_line_are_left_out_of_a_script() -> None:
    script = b"""/** A
 * module. */
const kinds = "audio/*,video/*"; /** kept */
  /** @type {T} */ (kinds);
const found = /[/*]*/.test(kinds);
"""
    left = b"\n\n" + script.split(b"\n", 2)[2].replace(b"  /** @type {T} */", b"")
    assert PageFile.of("x.js", script).body == left
    assert PageFile.of("x.css", script).body == script


def test_packaging_lists_exactly_the_files_of_page_and_client_for_the_executable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "packaging"))
    import flavours

    cpu = flavours.Flavour("x", (), (), {"sidecar": flavours.FILES["sidecar"]}, False)
    taken = {path for path, _ in flavours.data(cpu)}
    own = {path for path in FOLDER.rglob("*") if path.is_file()}
    assert taken == own | set(CLIENT.iterdir())
    targets = {f"{folder}/{path.name}" for path, folder in flavours.data(cpu)}
    ours = {f"sidecar/api/static/{path.relative_to(FOLDER).as_posix()}" for path in own}
    theirs = {f"sidecar/api/static/client/{path.name}" for path in CLIENT.iterdir()}
    assert targets == ours | theirs


def test_foreign_origin_gets_neither_the_page_nor_its_files(server: Server) -> None:
    digest = PageFiles().digest
    stranger = {"Origin": "http://evil.example"}
    embedded = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}
    for path in ("/", f"/page/{digest}/app.js", "/v1/page/about"):
        check_problem(server.client.get(path, headers=HTML | stranger), 403, "origin_not_allowed")
        check_problem(server.client.get(path, headers=HTML | embedded), 403, "origin_not_allowed")


def test_page_needs_no_token_but_its_data_does_and_a_link_gives_the_token_once_unlogged(
    start_server: StartServer,
) -> None:
    server = start_server(token=TOKEN, log_level="debug")
    bearer = {"Authorization": f"Bearer {TOKEN}"}
    assert server.client.get("/", headers=HTML).status_code == 200
    for path in ("/", "/v1/page/about", "/v1/jobs"):
        check_problem(server.client.get(path), 401, "token_missing")
    check_problem(server.client.post("/v1/page/links"), 401, "token_missing")
    link = server.client.post("/v1/page/links", headers=bearer).json()
    word = {"word": link["path"].removeprefix("/#open=")}
    assert TOKEN not in str(link)
    assert server.client.post("/v1/page/sessions", json=word).json() == {"token": TOKEN}
    check_problem(server.client.post("/v1/page/sessions", json=word), 401, "link_invalid")
    check_problem(server.client.post("/v1/page/sessions", json={}), 422, "field_missing")
    assert TOKEN not in server.log()
    assert word["word"] not in server.log()


def opened(server: Server, token: str = "") -> str:
    """What `vibevoice-asr open --print` says."""

    url = f"http://127.0.0.1:{server.port}"
    env = service_environment(Path("/nowhere"), **({"token": token} if token else {}))
    words = [sys.executable, "-m", "sidecar.main", "open", "--print", "--server", url]
    done = run_command(words, env=env, text=True, check=True)
    return done.stdout.strip()


def test_one_time_code_works_once_for_two_minutes_unless_its_owner_gets_too_many_newer() -> None:
    now = 1000.0
    handover = OneTimeCodes(lambda: now)
    first, second = handover.give("one", "anna"), handover.give("two", "anna")
    assert handover.take(first) == "one"
    for wrong in (first, "", "x" * 43):
        with pytest.raises(errors.LinkInvalid):
            handover.take(wrong)
    now += CODE_LIFETIME_S
    with pytest.raises(errors.LinkInvalid):
        handover.take(second)
    of_another = handover.give("of another", "ben")
    words = [handover.give(str(number), "anna") for number in range(MAX_CODES_PER_OWNER + 1)]
    with pytest.raises(errors.LinkInvalid):
        handover.take(words[0])
    assert handover.take(words[1]) == "1"
    assert handover.take(of_another) == "of another"


def test_full_one_time_codes_drop_those_of_the_owner_with_most() -> None:
    handover = OneTimeCodes(lambda: 1000.0)
    alone = handover.give("alone", "ben")
    greedy = [
        handover.give("greedy", f"one of {number}")
        for number in range(9)
        for _ in range(MAX_CODES_PER_OWNER)
    ]
    assert len(handover) == MAX_CODES
    assert handover.take(alone) == "alone"
    assert handover.take(greedy[-1]) == "greedy"


def test_page_gets_name_and_precisions_of_the_engine(server: Server) -> None:
    about = server.client.get("/v1/page/about").json()
    assert about["engine"]["name"] == "scripted"
    assert about["engine"]["precisions"] == ["fp32", "int8"]


def test_page_gets_the_options_that_the_engine_follows_with_their_limits(server: Server) -> None:
    options = server.client.get("/v1/page/about").json()["options"]
    assert {"language", "channels", "track"} <= options.keys()
    assert not {"num_speakers", "hotwords", "prompt", "temperature"} & options.keys()
    assert options["track"]["maximum"] == 99


@pytest.mark.parametrize(("peer", "topics"), [("127.0.0.1", {"uploads"}), ("192.0.2.7", set())])
async def test_only_a_page_on_this_machine_is_told_of_faults_in_the_setup(
    peer: str, topics: set[str], tmp_path: Path
) -> None:
    from pydantic import SecretStr

    from sidecar.config.settings import Settings
    from sidecar.server.app import create_app

    (tmp_path / "file").touch()
    spool = tmp_path / "file" / "folder"
    app = create_app(Settings(engine="scripted", token=SecretStr(TOKEN), spool_dir=spool))
    transport = httpx.ASGITransport(app, client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        bearer = {"Authorization": f"Bearer {TOKEN}"}
        findings = (await client.get("/v1/page/about", headers=bearer)).json()["findings"]
    assert topics <= {one["topic"] for one in findings}
    assert bool(findings) == bool(topics)
    assert all(one["text"] for one in findings)
    assert {one["state"] for one in findings} <= {"warning", "bad"}, "what is optional is no fault"


def test_peaks_have_a_byte_of_loudness_for_each_tenth_of_a_second(
    server: Server, tmp_path: Path
) -> None:
    import base64

    import numpy as np
    import soundfile

    rate = 16_000
    loud = np.repeat([0.0, 0.5, 1.0, 0.25], rate // 2) * np.tile([1.0, -1.0], rate)
    path = tmp_path / "steps.wav"
    soundfile.write(path, np.append(loud, np.full(800, 0.75)), rate, subtype="FLOAT")
    job = server.client.post("/v1/jobs", files={"audio": path.read_bytes()}).json()
    server.wait_state(job["id"], "done")
    body = server.client.get(f"/v1/jobs/{job['id']}/peaks").json()
    heard = list(base64.b64decode(body["peaks"]))
    assert body["per_second"] == 10
    assert heard == [0] * 5 + [128] * 5 + [255] * 5 + [64] * 5 + [191]
    check_problem(server.client.get("/v1/jobs/nothing/peaks"), 404, "job_not_found")


def test_invitation_opens_page_once_within_a_day_also_after_a_restart(tmp_path: Path) -> None:
    with Server(tmp_path, token=TOKEN) as server:
        words = ["open", "--invite", "--server", server.url]
        env = service_environment(tmp_path, token=TOKEN)
        done = run_command([sys.executable, "-m", "sidecar.main", *words], env=env, text=True)
        link, first_log = done.stdout.strip(), server.log()
        assert link.startswith(f"{server.url}/#open=")
        assert "first" in done.stderr
        assert TOKEN not in link
    (kept,) = (tmp_path / "data" / INVITATIONS).iterdir()
    assert TOKEN.encode() not in kept.read_bytes()
    word = {"word": link.partition("#open=")[2]}
    with Server(tmp_path, token=TOKEN) as server:
        assert server.client.post("/v1/page/sessions", json=word).json() == {"token": TOKEN}
        check_problem(server.client.post("/v1/page/sessions", json=word), 401, "link_invalid")
        assert word["word"] not in first_log + server.log()
    assert not [*kept.parent.iterdir()]


def test_invitation_without_a_token_to_send_is_refused(server: Server) -> None:
    url = f"http://127.0.0.1:{server.port}"
    words = [sys.executable, "-m", "sidecar.main", "open", "--invite", "--server", url]
    done = run_command(words, env=service_environment(Path("/nowhere")), text=True)
    assert done.returncode
    assert "--token @FILE" in done.stderr
