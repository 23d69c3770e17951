"""HTTPS: a certificate of our own that clients pin, and one that is exchanged while it serves."""

import asyncio
import errno
import http.client
import json
import logging
import os
import ssl
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import moonshine_voice
import psutil
import pytest
from cryptography import x509
from hosted_service import PORT_PATIENCE, SERVE
from service_process import (
    PATIENCE_S,
    REPOSITORY,
    free_port,
    popen,
    run_command,
    service_environment,
    until,
)
from vibevoice_asr_client import Trust

from sidecar import errors, files
from sidecar.auth import tls
from sidecar.cli.backends import ServiceTarget
from sidecar.cli.remote_service import service_at
from sidecar.config.settings import Settings
from sidecar.file_watcher import FileWatcher
from sidecar.server import listeners

NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
VOICE = Path(moonshine_voice.get_assets_path()) / "beckett.wav"


class Home:
    """A machine with a service that shows a certificate of its own."""

    def __init__(self, folder: Path, **settings: object) -> None:
        self.port = free_port()
        own = {**PORT_PATIENCE, "port": self.port, "shutdown_grace": 0, **settings}
        self.env = service_environment(folder, **own)
        self.log = folder / "stderr.log"
        self.pair = tls.certificate_pair_in(folder / "data" / tls.CERTIFICATE_FOLDER)
        self.url = f"https://127.0.0.1:{self.port}"

    def serve(self) -> tuple[subprocess.Popen[bytes], dict[str, Any]]:
        with self.log.open("ab") as log:
            process = popen(SERVE, cwd=REPOSITORY, env=self.env, stdout=subprocess.PIPE, stderr=log)
        assert process.stdout is not None
        return process, json.loads(process.stdout.readline())

    def run(self, *words: object, **env: str) -> subprocess.CompletedProcess[str]:
        return run_command([*SERVE, *map(str, words)], env={**self.env, **env}, text=True)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Home, dict[str, Any]]]:
    home = Home(tmp_path_factory.mktemp("home"), tls="self-signed", allowed_hosts="my-box.lan")
    process, ready = home.serve()
    with process:
        yield home, ready
        process.terminate()


def test_ready_line_and_log_have_fingerprint_of_the_certificate_that_is_served(
    home: tuple[Home, dict[str, Any]],
) -> None:
    at, ready = home
    assert ready["url"] == at.url
    shown = ssl.get_server_certificate(("127.0.0.1", at.port))
    assert ready["fingerprint"] == tls.certificate_fingerprint(shown)
    assert ready["fingerprint"] in at.log.read_text("utf-8")


def test_own_certificate_names_all_allowed_hosts_and_only_its_owner_may_read_the_key(
    home: tuple[Home, dict[str, Any]],
) -> None:
    at, _ = home
    shown = ssl.get_server_certificate(("127.0.0.1", at.port))
    said = x509.load_pem_x509_certificate(shown.encode())
    names = said.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert {"localhost", "my-box.lan"} <= set(names.get_values_for_type(x509.DNSName))
    assert {"127.0.0.1", "::1"} <= {
        str(address) for address in names.get_values_for_type(x509.IPAddress)
    }
    if os.name == "posix":
        assert stat.S_IMODE(at.pair.key.stat().st_mode) == 0o600


async def health(url: str, trust: Trust) -> dict[str, Any]:
    async with service_at(url, trust=trust) as client:
        return await client.health()


async def test_client_trusts_only_pinned_certificate_or_fingerprint(
    home: tuple[Home, dict[str, Any]], tmp_path: Path
) -> None:
    at, ready = home
    shown = ready["fingerprint"]
    for trust in (
        Trust(ca_cert=at.pair.certificate),
        Trust(fingerprint=shown),
        Trust(fingerprint=shown.replace(":", "").lower()),
    ):
        assert (await health(at.url, trust))["pid"] == ready["pid"]
    other = tls.ensure_certificate(tmp_path / "other", NAMES)
    strange = tls.certificate_fingerprint(other.certificate.read_text("utf-8"))
    plain = at.url.replace("https", "http")
    for url, trust, why in (
        (at.url, Trust(), "not trusted"),
        (at.url, Trust(ca_cert=other.certificate), "not trusted"),
        (at.url, Trust(fingerprint=strange), "another certificate"),
        (at.url, Trust(ca_cert=at.log), "cannot be used"),
        (plain, Trust(fingerprint=shown), "Nothing is encrypted"),
        (plain, Trust(insecure=True), "Nothing is encrypted"),
        (f"https://127.0.0.1:{free_port()}", Trust(fingerprint=shown), "does not answer"),
    ):
        with pytest.raises(errors.SidecarError, match=why):
            await health(url, trust)


def test_insecure_option_is_warned_of_and_without_it_own_certificate_is_trusted(
    home: tuple[Home, dict[str, Any]],
) -> None:
    at, ready = home
    answer = at.run("status", "--server", at.url, "--insecure", VIBEVOICE_TLS="off")
    assert answer.returncode == 0
    assert "--insecure" in answer.stderr
    answer = at.run("status", "--server", at.url, "--insecure", "--ca-cert", at.pair.certificate)
    assert (answer.returncode, answer.stdout) == (78, "")
    assert "exclude each other" in answer.stderr
    answer = at.run("status")
    assert (answer.returncode, answer.stderr) == (0, ""), "the settings tell where, and which"
    assert str(ready["pid"]) in answer.stdout


def test_transcribe_command_and_query_of_port_owner_are_answered_over_tls(
    home: tuple[Home, dict[str, Any]],
) -> None:
    at, ready = home
    trust = ("--fingerprint", ready["fingerprint"])
    answer = at.run("transcribe", VOICE, "--server", at.url, *trust)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.strip()
    found = listeners.find_service("127.0.0.1", at.port, PATIENCE_S)
    assert found is not None
    assert found.pid == ready["pid"]


@pytest.mark.parametrize("words", [(), ("--tls", "off")])
def test_ready_line_of_reused_service_has_its_scheme_and_fingerprint(
    words: tuple[str, ...], home: tuple[Home, dict[str, Any]]
) -> None:
    at, ready = home
    again = at.run("serve", "--if-port-taken", "reuse", *words)
    expected = {key: value for key, value in ready.items() if key != "token"}
    assert json.loads(again.stdout) == {**expected, "reused": True}


@pytest.mark.slow
def test_hsts_header_is_sent_only_with_given_certificate(
    home: tuple[Home, dict[str, Any]], tmp_path: Path
) -> None:
    def headers(port: int, pair: tls.CertificatePair) -> http.client.HTTPMessage:
        trusted = ssl.create_default_context(cafile=pair.certificate)
        connection = http.client.HTTPSConnection("127.0.0.1", port, context=trusted)
        connection.request("GET", "/health", headers={"Origin": f"https://127.0.0.1:{port}"})
        answer = connection.getresponse()
        assert answer.status == 200, "our own page, by HTTPS"
        connection.close()
        return answer.headers

    at, _ = home
    assert "strict-transport-security" not in headers(at.port, at.pair)
    named = Home(tmp_path, tls=str(at.pair.certificate), tls_key=at.pair.key)
    process, ready = named.serve()
    with process:
        assert ready["url"] == named.url
        assert "fingerprint" not in ready
        assert headers(named.port, at.pair)["strict-transport-security"] == "max-age=31536000"
        assert named.run("status").returncode == 0
        process.terminate()


def test_own_certificate_is_renewed_only_if_a_name_is_missing_or_its_end_is_near(
    tmp_path: Path,
) -> None:
    first = tls.ensure_certificate(tmp_path, NAMES).certificate.read_bytes()
    pair = tls.ensure_certificate(tmp_path, NAMES - {"::1"}, ["192.0.2.1"])
    assert pair.certificate.read_bytes() == first
    pair = tls.ensure_certificate(tmp_path, NAMES | {"my-box.lan"}, ["192.0.2.1"])
    second = pair.certificate.read_bytes()
    assert second != first
    pair = tls.ensure_certificate(tmp_path, NAMES, renewal_days=2 * tls.VALIDITY_DAYS)
    assert pair.certificate.read_bytes() != second


def test_own_certificate_is_made_without_addresses_where_the_service_may_not_ask_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise OSError(errno.EAFNOSUPPORT, os.strerror(errno.EAFNOSUPPORT))

    monkeypatch.setattr(psutil, "net_if_addrs", refuse)
    settings = Settings(host="0.0.0.0", tls="self-signed", data_dir=tmp_path)
    made = tls.create_tls(settings, FileWatcher())
    assert made is not None
    assert made.fingerprint


@pytest.mark.posix("permissions of POSIX")
def test_own_key_that_other_users_may_read_is_refused(tmp_path: Path) -> None:
    tls.ensure_certificate(tmp_path, NAMES).key.chmod(0o644)
    with pytest.raises(errors.SettingsInvalid, match="Other users may read"):
        tls.ensure_certificate(tmp_path, NAMES)


@pytest.mark.parametrize(
    ("named", "why"),
    [
        ({"tls_key": "key.pem"}, "without a certificate"),
        ({"tls": "self-signed", "tls_key": "key.pem"}, "without a certificate"),
        ({"tls": "absent.pem"}, "cannot be used"),
        ({"tls": "certificate.pem", "tls_key": "other.pem"}, "key values mismatch"),
        ({"tls": "certificate.pem", "tls_key": "locked.pem"}, "has a password"),
    ],
)
def test_invalid_tls_settings_are_refused(tmp_path: Path, named: dict[str, str], why: str) -> None:
    from cryptography.hazmat.primitives import serialization

    pair = tls.ensure_certificate(tmp_path, NAMES)
    other = tls.ensure_certificate(tmp_path / "more", NAMES).key.read_bytes()
    (tmp_path / "other.pem").write_bytes(other)
    key = serialization.load_pem_private_key(pair.key.read_bytes(), None)
    (tmp_path / "locked.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    given: dict[str, Any] = {
        name: value if value == "self-signed" else str(tmp_path / value)
        for name, value in named.items()
    }
    with pytest.raises(errors.SettingsInvalid, match=why):
        tls.create_tls(Settings(data_dir=tmp_path, **given), FileWatcher())


async def test_changed_certificate_serves_new_connections_only_and_a_broken_one_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    pair = tls.ensure_certificate(tmp_path / "first", NAMES)
    old = tls.certificate_fingerprint(pair.certificate.read_text("utf-8"))
    new = tls.ensure_certificate(tmp_path / "second", NAMES)
    watcher = FileWatcher(every_s=0.01)
    own = tls.create_tls(Settings(tls=str(pair.certificate), tls_key=pair.key), watcher)
    assert own is not None

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=own.context)
    port = server.sockets[0].getsockname()[1]
    looking = asyncio.create_task(watcher.run())

    async def shown() -> str:
        pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", port))
        return tls.certificate_fingerprint(pem)

    trusted = ssl.create_default_context(cafile=pair.certificate)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusted)
    assert await shown() == old
    files.write(pair.certificate, b"broken")
    await until(lambda: "the previous version stays in use" in caplog.text)
    assert await shown() == old, "the last good one counts"
    files.write(pair.certificate, new.certificate.read_bytes())
    files.write(pair.key, new.key.read_bytes())
    await until(lambda: " reloaded" in caplog.text)
    assert await shown() != old
    writer.write(b"still here\n")
    assert await reader.readline() == b"still here\n"
    writer.close()
    looking.cancel()
    server.close()


def test_conflicting_or_invalid_pins_are_refused() -> None:
    with pytest.raises(errors.SettingsInvalid, match="--ca-cert"):
        ServiceTarget(fingerprint="0" * 64, insecure=True)
    with pytest.raises(errors.SettingsInvalid, match="no SHA-256"):
        ServiceTarget(fingerprint="abc")
    assert not ServiceTarget().trust.given
