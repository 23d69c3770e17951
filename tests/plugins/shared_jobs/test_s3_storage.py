"""Recordings in a bucket of a real server: what it refuses, what it loses, and what is left in it
when it or we are gone."""

import io
import logging
import os
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from http_file_server import FileHost
from job_event_histories import submitted
from object_storage import BUCKET, READER, SECRET, Given, ObjectStorage, keys
from postgres import KEY
from proxies import RoundRobin
from service_process import MB, PATIENCE_S, REPOSITORY, wait_until
from shared_job_services import service
from uploads import upload

from sidecar import errors
from sidecar.audio.audio_source import StoredRecordingRef
from sidecar.auth.tls import ensure_certificate
from sidecar.installation import install_command
from sidecar.jobs.persistent_recordings import PersistentRecordings
from sidecar.plugins import load_settings, settings_class
from sidecar.plugins.shared_jobs import PLUGIN
from sidecar.plugins.shared_jobs.checks import check_shared_jobs
from sidecar.plugins.shared_jobs.postgres_database import migrate_postgres
from sidecar.plugins.shared_jobs.s3_storage import (
    PART_BYTES,
    S3Client,
    S3Storage,
    S3Unavailable,
)
from sidecar.plugins.shared_jobs.storage_selection import check_storage, create_recording_storage
from sidecar.service.system_checks import CheckState
from sidecar.storage.encryption import Cipher
from sidecar.storage.recording_storage import FolderStorage, new_name

Settings = settings_class()


def settings_of(address: str, **more: Any) -> Settings:
    given = {"journal": "postgresql://nowhere", "uploads": address, "journal_key": KEY}
    return Settings(**(given | more))


@pytest.fixture
def opened(any_storage_server: Given, bucket: str) -> S3Storage:
    made = create_recording_storage(settings_of(bucket), Path("nowhere"))
    assert isinstance(made, S3Storage)
    return made


@pytest.mark.slow_except("environment0", "environment2")
@pytest.mark.parametrize(
    ("environment", "more", "said", "todo"),
    [
        (keys("nobody"), {}, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (keys(secret="wrong" * 5), {}, "SignatureDoesNotMatch", "AWS_SECRET_ACCESS_KEY"),
        (keys(READER), {}, "AccessDenied", "read, write and delete"),
        (keys("", ""), {}, "requires keys", "AWS_PROFILE"),
        ({}, {"uploads": "s3://no-such-bucket-here"}, "NoSuchBucket", "Make the bucket"),
        ({"AWS_ENDPOINT_URL_S3": "http://[::1]:9"}, {}, "EndpointConnectionError", "Start it"),
        ({}, {"uploads": "recordings/asr"}, "neither a bucket", "s3://recordings/asr"),
        ({"AWS_ENDPOINT_URL_S3": "http://me:pw@127.0.0.1"}, {}, "not the address", "AWS_SECRET"),
        ({"AWS_ENDPOINT_URL_S3": "127.0.0.1:9000"}, {}, "not the address", "http://10.0.0.5:9000"),
    ],
)
def test_unusable_bucket_settings_are_refused_with_a_hint_and_without_secrets(
    environment: dict[str, str],
    more: dict[str, Any],
    said: str,
    todo: str,
    storage_server: ObjectStorage,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
        if not value:
            monkeypatch.delenv(name)
    with pytest.raises(errors.SettingsInvalid) as refused:
        check_storage(create_recording_storage(settings_of(bucket, **more), Path("nowhere")), 0.0)
    told = refused.value.to_wire()
    assert said in told["detail"]
    assert todo in told["hint"]
    assert SECRET not in str(told)
    assert "me:pw" not in str(told)


def test_bucket_for_jobs_that_are_not_shared_is_refused() -> None:
    settings = settings_of("s3://recordings", journal=None, keep_jobs=True)
    assert PLUGIN.shared_jobs is not None
    with pytest.raises(errors.SettingsInvalid, match="requires shared jobs") as refused:
        PLUGIN.shared_jobs(settings)
    assert "VIBEVOICE_JOURNAL" in refused.value.hint


def test_storage_server_with_untrusted_certificate_is_refused_until_its_ca_is_configured(
    any_storage_server: Given, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair = ensure_certificate(tmp_path / "tls", frozenset({"127.0.0.1"}))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    port = int(any_storage_server.endpoint.rpartition(":")[2])
    settings = settings_of(bucket)
    with closing(RoundRobin(port, tls=context)) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"https://127.0.0.1:{proxy.port}")
        with pytest.raises(errors.SettingsInvalid, match="SSLError") as refused:
            check_storage(create_recording_storage(settings, Path("nowhere")))
        assert "AWS_CA_BUNDLE" in refused.value.hint
        monkeypatch.setenv("AWS_CA_BUNDLE", str(pair.certificate))
        believed = create_recording_storage(settings, Path("nowhere"))
        check_storage(believed)
        believed.put("a-job", [b"a recording"])
        assert [*believed.read("a-job")] == [b"a recording"]


def test_missing_s3_extra_is_refused_with_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("botocore", "botocore.session"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(errors.SettingsInvalid) as refused:
        create_recording_storage(settings_of("s3://recordings"), Path("nowhere"))
    assert install_command("s3") in refused.value.hint


def test_doctor_names_the_bucket_and_its_error(
    any_storage_server: Given, bucket: str, journal: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = check_shared_jobs(settings_of(bucket, journal=journal))
    assert found.state is CheckState.GOOD
    assert f"{bucket} at 127.0.0.1:" in found.text
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    found = check_shared_jobs(settings_of(bucket, journal=journal))
    assert found.state is CheckState.BAD
    assert "rejects the" in found.text


def test_missing_bucket_is_not_reported_as_missing_recording(opened: S3Storage) -> None:
    missing = create_recording_storage(settings_of("s3://no-such-bucket-here"), Path("nowhere"))
    for storage, error in ((opened, FileNotFoundError), (missing, errors.StorageUnreachable)):
        with pytest.raises(error):
            storage.open("recording")


class ProxyWithoutServer(FileHost):
    """What a reverse proxy answers while the server behind it restarts."""

    heads = True
    body = b""

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """There is nothing here."""
        self.head(request, 404, len(self.body), {"Content-Type": "text/html"})
        if request.command != "HEAD":
            request.wfile.write(self.body)


@pytest.mark.parametrize(
    "body",
    [b"", b"404 page not found\n", b"<html><body>404</body></html>", b"<html><br></html>"],
    ids=["empty", "text", "xhtml", "html"],
)
def test_404_of_a_proxy_is_storage_unreachable_and_not_a_missing_recording(
    body: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in keys().items():
        monkeypatch.setenv(name, value)
    record = replace(submitted(durable=True), audio=StoredRecordingRef("a", "0" * 64, 9, "bucket"))
    with ProxyWithoutServer() as proxy:
        proxy.body = body
        storage = S3Storage(S3Client(proxy.url), BUCKET, "asr/")
        kept = PersistentRecordings(Settings(), storage, Cipher(KEY, bytes(16)), shared=True)
        for call in (lambda: kept.open(record), lambda: storage.delete("a"), storage.ages):
            with pytest.raises(errors.StorageUnreachable):
                call()
        with pytest.raises(errors.StorageUnreachable):
            storage.range("a", 0, 1)
        with pytest.raises(errors.SettingsInvalid, match="does not answer"):
            check_storage(storage, 0.0)


class PageForAll(ProxyWithoutServer):
    """A proxy that answers each request with a page, as one does that asks for a login; HEAD with
    ``head_status``."""

    head_status = 404
    kind = "text/html; charset=utf-8"
    etag: str | None = None

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """All is well."""
        body, status = b"<html><body>Sign in</body></html>", 200
        self.read_body(request)
        if request.command == "HEAD":
            body, status = b"", self.head_status
        headers = {"Content-Type": self.kind}
        if self.etag and request.command != "HEAD":
            headers["ETag"] = self.etag
        self.reply(request, status, body, headers)


@pytest.mark.parametrize(
    ("kind", "etag"),
    [
        ("text/html; charset=utf-8", None),
        ("text/html; charset=utf-8", 'W/"18-page"'),
        ("application/xml", None),
    ],
)
def test_page_that_a_proxy_answers_with_200_is_storage_unreachable_for_each_call(
    kind: str, etag: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in keys().items():
        monkeypatch.setenv(name, value)
    with PageForAll() as proxy:
        proxy.kind, proxy.etag = kind, etag
        storage = S3Storage(S3Client(proxy.url), BUCKET, "asr/")
        storage.delete = storage.delete  # type: ignore[method-assign]
        calls: list[Callable[[], object]] = [
            lambda: storage.put("small", [b"a recording"]),
            lambda: storage.put("large", [bytes(2 * PART_BYTES)]),
            lambda: storage.range("small", 0, 9),
            lambda: storage.delete("small"),
        ]
        if "html" in kind:
            calls.append(storage.ages)
        for call in calls:
            with pytest.raises(errors.StorageUnreachable):
                call()
        proxy.head_status = 200
        for call in (lambda: storage.put("small", [b"a"]), lambda: storage.open("small")):
            with pytest.raises(errors.StorageUnreachable):
                call()


class EmptyAnswersAsHtml(FileHost):
    """Answers with the types of OpenStack Swift: an empty body is HTML, whatever the call."""

    heads = True
    status_of_deletions = 204
    body = b"<R><UploadId>u</UploadId><ETag>e</ETag></R>"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        """All is well, and nothing was there before."""
        self.read_body(request)
        headers = {"Content-Type": "text/html; charset=UTF-8"}
        if request.command == "POST":
            self.reply(request, 200, self.body, {"Content-Type": "application/xml"})
        elif request.command == "PUT":
            self.reply(request, 200, b"", headers | {"ETag": '"e"'})
        else:
            status = 404 if request.command == "HEAD" else self.status_of_deletions
            self.reply(request, status, b"", headers)


@pytest.mark.parametrize("status_of_deletions", [204, 200])
def test_empty_answers_that_a_storage_server_calls_html_are_taken_as_success(
    status_of_deletions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in keys().items():
        monkeypatch.setenv(name, value)
    with EmptyAnswersAsHtml() as server:
        server.status_of_deletions = status_of_deletions
        client = S3Client(server.url)
        storage = S3Storage(client, BUCKET, "asr/")
        storage.put("small", [b"a recording"])
        storage.put("large", [bytes(2 * PART_BYTES)])
        storage.delete("small")
        client.ask("abort_multipart_upload", Bucket=BUCKET, Key="asr/large.sealed", UploadId="u")


def test_object_that_only_a_proxy_called_missing_is_opened(
    opened: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.put("whole", [b"a recording"])
    opened.put("whole-2", [b"another"])
    ask = S3Client.ask

    def head_by_proxy(self: S3Client, call: str, **what: Any) -> Any:
        if call == "head_object":
            raise FileNotFoundError("as a 404 without a body is taken")
        return ask(self, call, **what)

    monkeypatch.setattr(S3Client, "ask", head_by_proxy)
    assert [*opened.read("whole")] == [b"a recording"]
    with pytest.raises(FileNotFoundError):
        opened.open("whole-")


def test_foreign_objects_in_bucket_are_not_listed(
    any_storage_server: Given, bucket: str, opened: S3Storage
) -> None:
    client, prefix = any_storage_server.client(), bucket.removeprefix(f"s3://{BUCKET}/")
    for key in (f"{prefix}/a-file", f"{prefix}/deeper/of-others.sealed", f"{prefix}.sealed"):
        client.put_object(Bucket=BUCKET, Key=key, Body=b"theirs")
    opened.put("ours", [b"a recording"])
    assert [*opened.ages()] == ["ours"]


def test_start_check_leaves_no_object_although_its_first_deletion_fails(
    opened: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask, failed = S3Client.ask, list[str]()

    def away(self: S3Client, call: str, **what: Any) -> Any:
        if call == "delete_object" and not failed:
            failed.append(what["Key"])
            raise S3Unavailable("ReadTimeoutError")
        return ask(self, call, **what)

    monkeypatch.setattr(S3Client, "ask", away)
    check_storage(opened, PATIENCE_S, retry_pause_s=0.0)
    assert failed
    assert not opened.ages()


def test_unfinished_multipart_upload_is_listed_with_age_and_deleted(
    any_storage_server: Given, bucket: str, opened: S3Storage
) -> None:
    client, prefix = any_storage_server.client(), bucket.removeprefix(f"s3://{BUCKET}/")
    of = {"Bucket": BUCKET, "Key": f"{prefix}/left.sealed"}
    of["UploadId"] = client.create_multipart_upload(**of)["UploadId"]
    client.upload_part(**of, PartNumber=1, Body=bytes(PART_BYTES))
    ages = opened.ages()
    assert [*ages] == ["left.part"]
    assert -5 < ages["left.part"] < PATIENCE_S, "by the clock of the server"
    with pytest.raises(FileNotFoundError):
        opened.open("left")
    opened.delete("left.part")
    wait_until(lambda: not opened.ages(), "it is gone")
    assert not client.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads")


@pytest.mark.slow
async def test_death_of_the_storage_server_leaves_no_partial_object_and_loses_no_whole_one(
    storage_server: ObjectStorage, opened: S3Storage, journal: str, tmp_path: Path
) -> None:
    data = os.urandom(2 * PART_BYTES)
    opened.put("whole", [data])

    def dying() -> Iterator[bytes]:
        yield bytes(2 * PART_BYTES)
        storage_server.kill()
        yield bytes(2 * PART_BYTES)

    reading = opened.read("whole")
    assert next(reading) == data[: len(data) // 4]
    with pytest.raises(errors.StorageUnreachable) as away:
        opened.put("half", dying())
    assert away.value.retry_after
    with pytest.raises(errors.StorageUnreachable):
        next(reading)
    with ThreadPoolExecutor() as beside:
        starting = beside.submit(check_storage, opened, PATIENCE_S)
        storage_server.start()
        starting.result()
    assert b"".join(opened.read("whole")) == data
    async with service(journal, tmp_path, storage=opened) as shared:
        shared.retention.discard("half")
        await shared.retention.delete_recordings()
    assert [*opened.ages()] == ["whole"], "nothing of the other is left"


@pytest.mark.slow
def test_put_and_read_at_a_silent_storage_server_time_out_as_storage_unreachable(
    storage_server: ObjectStorage, bucket: str
) -> None:
    patient = create_recording_storage(settings_of(bucket), Path("nowhere"))
    patient.put("whole", [b"a recording"])
    name, _, prefix = bucket.removeprefix("s3://").partition("/")
    client = S3Client(os.environ["AWS_ENDPOINT_URL_S3"], read_timeout_s=0.3)
    quick = S3Storage(client, name, f"{prefix}/")
    with storage_server.halted():
        with pytest.raises(errors.StorageUnreachable):
            quick.put("another", [b"a recording"])
        with pytest.raises(errors.StorageUnreachable):
            next(iter(quick.read("whole")))
    assert [*patient.read("whole")] == [b"a recording"]


LARGE_MB, MOST_MB = 128, 80
SENDS = f"""
import hashlib
from pathlib import Path
from sidecar.plugins.shared_jobs.storage_selection import create_recording_storage
from sidecar.plugins import load_settings
def most_mb():
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024
def pieces():
    for number in range({LARGE_MB}):
        yield bytes([number]) * {MB}
bucket = create_recording_storage(load_settings(), Path("nowhere"))
bucket.put("first", [b"what is imported is"])
before = most_mb()
bucket.put("large", pieces())
there = hashlib.sha256()
for piece in bucket.read("large"):
    there.update(piece)
sent = hashlib.sha256()
for piece in pieces():
    sent.update(piece)
assert there.digest() == sent.digest()
print(most_mb() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the most that a process had")
def test_large_recording_is_sent_and_read_without_being_held_whole_in_memory(
    any_storage_server: Given, bucket: str
) -> None:
    environment = os.environ | {
        "VIBEVOICE_JOURNAL": "postgresql://nowhere",
        "VIBEVOICE_UPLOADS": bucket,
    }
    done = subprocess.run(
        [sys.executable, "-c", SENDS],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < MOST_MB, "MB beside what is there without it"


Harm = Callable[[Any, str], None]


def halved(client: Any, key: str) -> None:
    data = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
    client.put_object(Bucket=BUCKET, Key=key, Body=data[: len(data) // 2])


def altered(client: Any, key: str) -> None:
    data = bytearray(client.get_object(Bucket=BUCKET, Key=key)["Body"].read())
    data[1000] ^= 1
    client.put_object(Bucket=BUCKET, Key=key, Body=bytes(data))


def gone(client: Any, key: str) -> None:
    client.delete_object(Bucket=BUCKET, Key=key)


def another(client: Any, key: str) -> None:
    """Sealed by us about the same, and not what the job was given."""
    client.copy_object(Bucket=BUCKET, Key=key, CopySource=f"{BUCKET}/{key}-other")


async def test_damaged_or_exchanged_object_is_audio_lost_and_those_of_no_job_are_deleted(
    any_storage_server: Given,
    bucket: str,
    journal: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What no job needs goes with a later start, once it is old enough."""
    client, prefix = any_storage_server.client(), bucket.removeprefix(f"s3://{BUCKET}/")
    monkeypatch.setenv("VIBEVOICE_JOURNAL", journal)
    settings = load_settings(uploads=bucket, journal_key=KEY, data_dir=tmp_path / "none")
    storage = create_recording_storage(settings, tmp_path / "none")
    async with service(journal, tmp_path / "none", storage=storage) as shared:
        seal = migrate_postgres(journal, KEY)
        one = PersistentRecordings(settings, storage, seal, shared=True)
        with upload(data := os.urandom(100_000)) as source:
            audio = one.store(source, "a-job")
            key = f"{prefix}/a-job.sealed"
            first = client.get_object(Bucket=BUCKET, Key=key)["Body"].read()
            assert data[:64] not in first, "it is sealed"
            gone(client, key)
            one.store(source, "a-job")
            client.copy_object(Bucket=BUCKET, Key=f"{key}-other", CopySource=f"{BUCKET}/{key}")
            one.store(source, lost := new_name(shared.code))
            one.store(source, "of-another-store")
        assert isinstance(audio, StoredRecordingRef)
        record = replace(submitted(durable=True), audio=audio)
        for harm in (halved, altered, another, gone, None):
            client.put_object(Bucket=BUCKET, Key=key, Body=first)
            if harm is None:
                with one.open(record) as found:
                    assert os.pread(found.fd, len(data) + 1, 0) == data
                continue
            harm(client, key)
            with pytest.raises(errors.AudioLost):
                one.open(record)
        await shared.jobs.submit(record)
        await shared.retention.sweep_storage()
        assert {*storage.ages()} == {"a-job", "of-another-store", lost}
        shared.retention.orphan_age_s = -60.0
        await shared.retention.sweep_storage()
        assert {*storage.ages()} == {"a-job", "of-another-store"}
        of_folders = load_settings(journal_key=KEY)
        astray = PersistentRecordings(
            of_folders, FolderStorage(tmp_path / "folder"), seal, shared=True
        )
        with pytest.raises(errors.StorageUnreachable):
            astray.open(await shared.jobs.get(record.id))
        await shared.jobs.cancel(record.id)
        await shared.retention.settled()
        await shared.retention.delete_recordings()
        assert [*storage.ages()] == ["of-another-store"], "its recording goes with it"
    assert not (tmp_path / "none").exists()


def test_error_of_a_refused_request_names_its_reason_and_no_storage_key_as_does_the_log(
    storage_server: ObjectStorage,
    bucket: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody-knows")
    made = create_recording_storage(settings_of(bucket), Path("nowhere"))
    with pytest.raises(errors.StorageUnreachable) as refused:
        made.put("a-job", io.BytesIO(b"a recording"))
    said = refused.value.detail
    assert "rejects" in said
    assert "AccessDenied" in said or "InvalidAccessKeyId" in said or "403" in said
    assert SECRET not in caplog.text + said
    assert "nobody-knows" not in caplog.text + said


def test_tilde_in_the_prefix_of_a_bucket_is_no_home_folder() -> None:
    assert load_settings(uploads="s3://~/asr").uploads == "s3://~/asr"
