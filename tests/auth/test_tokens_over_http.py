"""Signed tokens at the door of a real service: refused in one shape, revoked while it runs."""

import json
import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from recordings import long
from service_process import Server, check_problem, read_answer, wait_until
from sse_reader import Event, parse
from token_attacks import Attacker
from two_fronts_and_node import WAYS, Fronts, started
from vibevoice_asr_client import Client
from vibevoice_asr_client.codes import TokenInvalid

from sidecar import errors
from sidecar.auth.token_issuing import TokenIssuer
from sidecar.config.settings import Settings
from sidecar.server.app import create_app


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Attacker:
    return Attacker(TokenIssuer(tmp_path_factory.mktemp("known") / "tokens"))


@pytest.fixture(scope="module")
def attacks(attacker: Attacker) -> dict[str, list[bytes]]:
    return attacker.headers()


@pytest.fixture(scope="module", params=WAYS)
def door(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    attacker: Attacker,
    attacks: dict[str, list[bytes]],
) -> Iterator[Server]:
    """A service that knows of all that was revoked for the attacks."""
    home = tmp_path_factory.mktemp("door")
    settings = {"token_keys": attacker.issuer.keys.public, "log_level": "debug"}
    with started(request.param, home, request, scripted_speed=1, **settings) as running:
        yield running


def ask(server: Server, authorizations: list[bytes]) -> tuple[int, dict[str, str], bytes]:
    head = b"".join(b"Authorization: " + each + b"\r\n" for each in authorizations)
    with server.raw() as sock:
        sock.sendall(b"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\n" + head + b"\r\n")
        return read_answer(sock)


def test_every_attack_but_an_old_token_of_ours_gets_the_same_refusal(
    door: Server, attacks: dict[str, list[bytes]]
) -> None:
    shapes = {}
    for name, headers in attacks.items():
        status, said, body = ask(door, headers)
        said.pop("date")
        problem = json.loads(body)
        assert len(problem.pop("request_id", "")) == 32, (name, body)
        shapes[name] = (status, tuple(said.items()), json.dumps(problem))
    told = {name: json.loads(shapes.pop(name)[2])["detail"] for name in ("expired", "revoked")}
    assert told == {
        "expired": "This token has expired.",
        "revoked": "This token was revoked.",
    }  # a known key has signed it
    first = next(iter(shapes.values()))
    assert {name: shape for name, shape in shapes.items() if shape != first} == {}
    assert first[0] == 401
    assert json.loads(first[2])["code"] == "token_invalid"
    assert json.loads(first[2])["hint"].startswith("Copy it again, whole")
    assert len(shapes) > 100
    assert "Traceback" not in door.log()


def test_valid_token_is_accepted_and_not_logged(door: Server, attacker: Attacker) -> None:
    status, _, body = ask(door, [b"bearer  " + attacker.good.encode()])
    assert (status, set(json.loads(body))) == (200, {"jobs", "next"})
    assert attacker.good.rpartition(".")[2] not in door.log()
    check_problem(door.client.get("/v1/jobs"), 401, "token_missing")
    assert door.client.get("/health").status_code == 200


def test_owner_sees_and_erases_only_own_jobs_and_has_only_the_scopes_of_its_token(
    door: Server, attacker: Attacker, voice: bytes
) -> None:
    anna, ben, carl = (
        {"Authorization": f"Bearer {attacker.issuer.create(name, scopes=scopes)[0]}"}
        for name, scopes in (("anna", ("audio_path",)), ("dora", ("reload",)), ("anna", ()))
    )
    job = door.client.post(
        "/transcribe", files={"audio": voice}, headers=anna | {"Prefer": "respond-async"}
    ).json()
    where = f"/v1/jobs/{job['id']}"
    assert door.client.get(where, headers=anna).status_code == 200
    assert door.client.get(where, headers=carl).status_code == 200, "another token of that name"
    theirs, nobodys = (door.client.get(f"/v1/jobs/{one}", headers=ben) for one in (job["id"], "no"))
    check_problem(theirs, 404, "job_not_found")
    same = [one.json() | {"request_id": ""} for one in (theirs, nobodys)]
    assert same[0] == same[1], "not even that there is one"
    order = {"precision": "fp32"}
    check_problem(door.client.post("/reload-model", json=order, headers=anna), 403, "scope_missing")
    assert door.client.post("/reload-model", json=order, headers=ben).status_code != 403
    path = {"audio_path": str(Path("no/such/file.wav").absolute())}
    check_problem(
        door.client.post("/transcribe", json=path, headers=ben), 403, "audio_path_forbidden"
    )
    check_problem(
        door.client.post("/transcribe", json=path, headers=anna), 404, "audio_path_not_found"
    )
    other = door.client.post("/v1/jobs", files={"audio": voice}, headers=ben).json()
    for jobs in (1, 0):
        erased = door.client.delete("/v1/data", headers=carl).json()
        assert erased == {"jobs": jobs, "people": 0, "live_sessions": 0}
    check_problem(door.client.get(where, headers=anna), 404, "job_not_found")
    assert door.client.get(f"/v1/jobs/{other['id']}", headers=ben).status_code == 200


def test_revocation_and_new_public_key_take_effect_without_a_restart(
    door: Server, attacker: Attacker, tmp_path: Path
) -> None:
    def states(token: str) -> set[int]:
        headers = {"Authorization": f"Bearer {token}"}
        fronts = door.fronts if isinstance(door, Fronts) else [door]
        return {front.client.get("/v1/jobs", headers=headers).status_code for front in fronts}

    lost, _ = attacker.issuer.create("lost")
    elsewhere = TokenIssuer(tmp_path / "elsewhere")
    new, _ = elsewhere.create("anna")
    assert states(lost) == {200}
    assert states(new) == {401}, "its key is not known yet"
    attacker.issuer.revoke("lost")
    for key in elsewhere.keys.public.iterdir():
        shutil.copy(key, attacker.issuer.keys.public / f"new-{key.name}")
    wait_until(lambda: (states(lost), states(new)) == ({401}, {200}), "both noticed")
    assert states(attacker.good) == {200}


class Listener:
    """Reads an answer in a thread, to its end."""

    def __init__(self, server: Server, token: str, method: str, url: str, **request: Any) -> None:
        self.status, self.body = 0, b""
        self._headers = {"Authorization": f"Bearer {token}"}
        self._ask = lambda: server.client.stream(method, url, headers=self._headers, **request)
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        with self._ask() as response:
            self.status = response.status_code
            for piece in response.iter_bytes():
                self.body += piece

    @property
    def ended(self) -> bool:
        return not self.thread.is_alive()

    @property
    def last(self) -> Event:
        return list(parse(self.body))[-1]


@pytest.mark.slow
def test_revoked_token_ends_its_open_streams_and_waiting_requests_and_no_other_tokens(
    door: Server, attacker: Attacker
) -> None:
    """Streams and waits that began with a token that counted; its jobs of `/v1/jobs` go on."""
    made = {name: attacker.issuer.create("listener") for name in ("stays", "goes")}
    who = {name: token for name, (token, _) in made.items()}
    stays = {"Authorization": f"Bearer {who['stays']}"}
    upload = {"files": {"audio": ("long.wav", long(600))}}
    job = door.client.post("/v1/jobs", headers=stays, **upload).raise_for_status().json()
    events = f"/v1/jobs/{job['id']}/events"
    followers = {name: Listener(door, token, "GET", events) for name, token in who.items()}
    original = Listener(door, who["goes"], "POST", "/v1/transcribe", **upload)
    waiting = Listener(door, who["goes"], "POST", "/transcribe", **upload)
    wait_until(lambda: all(each.body for each in followers.values()), "they listen")
    wait_until(lambda: door.health()["jobs_waiting"] == 2, "all three are there")
    attacker.issuer.revoke(made["goes"][1].token_id)
    gone = (followers["goes"], original, waiting)
    wait_until(lambda: all(each.ended for each in gone), "they are told to go")
    last = gone[0].last
    assert (last.name, last.data["error"]["code"]) == ("unauthorized", "token_invalid")
    assert (original.last.name, original.last.data) == ("error", {"error": "Invalid token"})
    assert (waiting.status, json.loads(waiting.body)["code"]) == (401, "token_invalid")
    counts = re.findall(r"was revoked: (\d+) open streams", door.log())  # of each front its own
    assert sum(map(int, counts)) == 3
    assert not followers["stays"].ended
    gone_along = "who is sent away takes the job along"
    wait_until(lambda: door.health()["jobs_waiting"] == 0, gone_along)
    with (
        pytest.raises(TokenInvalid),
        Client(str(door.client.base_url), token=who["goes"]) as client,
    ):
        list(client.events(job["id"]))
    door.client.delete(f"/v1/jobs/{job['id']}", headers=stays).raise_for_status()
    wait_until(lambda: followers["stays"].ended, "its job has ended")
    assert followers["stays"].last.name == "cancelled"


def test_service_on_the_network_needs_a_token_or_a_key_and_a_valid_revocation_list(
    tmp_path: Path,
) -> None:
    elsewhere = Settings(engine="scripted", host="0.0.0.0", data_dir=tmp_path)
    with pytest.raises(errors.SettingsInvalid, match="neither a token nor a key"):
        create_app(elsewhere)
    create_app(elsewhere.model_copy(update={"token": SecretStr("correct-horse-battery-staple")}))
    TokenIssuer(tmp_path / "tokens").create("anna")
    create_app(elsewhere)
    TokenIssuer(tmp_path / "tokens").revoked_file.write_text("not an id\n", "utf-8")
    with pytest.raises(errors.SettingsInvalid, match="line 1"):
        create_app(elsewhere)
