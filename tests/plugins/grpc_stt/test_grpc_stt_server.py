"""The gRPC listener in this process: its port, certificate, counts, and who is sent away."""

import asyncio
import datetime
import os
import re
import signal
import sys
import time
import tomllib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import descriptor_pb2
from grpc_client import sound
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_in_process import (
    Caller,
    Inside,
    Named,
    access_control,
    create,
    ended,
    recognize,
    reserved,
)
from grpc_tools import protoc
from service_process import PATIENCE_S, REPOSITORY, new_file, until

from sidecar import errors
from sidecar.auth import tls
from sidecar.auth.tls import CertificatePair
from sidecar.file_watcher import FileWatcher
from sidecar.plugins import load_settings
from sidecar.plugins.grpc_stt import session, stt_pb2
from sidecar.plugins.grpc_stt.server import server_credentials
from sidecar.plugins.grpc_stt.servicer import peer_address, request_origin
from sidecar.plugins.grpc_stt.stt_pb2 import AudioChunk, SessionRequest
from sidecar.server.app import create_listeners
from sidecar.service.facade import Service

Start = Callable[..., Awaitable[int]]
HEALTH = health_pb2.HealthCheckRequest()


@pytest.fixture
async def inside(tmp_path: Path) -> AsyncIterator[Inside]:
    async with Inside(tmp_path) as inside:
        yield inside


@pytest.fixture
def service(inside: Inside) -> Service:
    return inside.service


@pytest.fixture
def start(inside: Inside) -> Start:
    return inside.listen


async def test_grpc_port_taken_before_the_listener_starts_is_port_in_use(start: Start) -> None:
    mine = reserved()
    with reserved(mine.getsockname()[1]) as other:  # nobody listens yet
        other.listen()
        with pytest.raises(errors.PortInUse):
            await start(access_control(), mine)


def certificate(folder: Path) -> CertificatePair:
    return tls.ensure_certificate(folder, frozenset({"localhost"}), [])


@asynccontextmanager
async def watching() -> AsyncIterator[FileWatcher]:
    """A watcher that looks often."""
    watch = FileWatcher(every_s=0.02)
    looking = asyncio.create_task(watch.run())
    try:
        yield watch
    finally:
        looking.cancel()


async def answers(port: int, trusted: CertificatePair, *own: bytes | None) -> bool:
    """Whether a client that trusts a certificate, and perhaps shows a key and one of its own, is
    answered."""
    credentials = grpc.ssl_channel_credentials(trusted.certificate.read_bytes(), *own)
    async with grpc.aio.secure_channel(f"localhost:{port}", credentials) as channel:
        status = await health_pb2_grpc.HealthStub(channel).Check(HEALTH, timeout=PATIENCE_S).code()
    assert status in (grpc.StatusCode.OK, grpc.StatusCode.UNAVAILABLE)
    return status is grpc.StatusCode.OK


async def test_replaced_certificate_is_used_for_new_connections(
    start: Start, tmp_path: Path
) -> None:
    first, second = (certificate(tmp_path / name) for name in ("one", "two"))
    shown = CertificatePair(tmp_path / "certificate.pem", tmp_path / "key.pem")

    def show(pair: CertificatePair) -> None:
        shown.certificate.write_bytes(pair.certificate.read_bytes())
        shown.key.write_bytes(pair.key.read_bytes())

    show(first)
    async with watching() as watch:
        port = await start(access_control(), None, server_credentials(shown, watch))
        assert await answers(port, first)
        assert not await answers(port, second)
        show(second)
        while not await answers(port, second):
            pass


class Authority:
    """Vouches for clients, with a certificate in a file."""

    def __init__(self, folder: Path, name: str) -> None:
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(self._signed(self._name, self._key, 3650, ca=True))

    def client(self, days: int = 30) -> tuple[bytes, bytes]:
        """Key and certificate of one, as PEM; with days below 0 they are over."""
        key = ec.generate_private_key(ec.SECP256R1())
        who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "client")])
        pem = serialization.Encoding.PEM
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        return key.private_bytes(pem, *plain), self._signed(who, key, days)

    def _signed(
        self, who: x509.Name, key: ec.EllipticCurvePrivateKey, days: int, *, ca: bool = False
    ) -> bytes:
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(who)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)


async def test_only_valid_client_certificates_of_authorities_now_in_the_file_are_accepted(
    service: Service, tmp_path: Path
) -> None:
    pair = certificate(tmp_path / "shown")
    ours, others = Authority(tmp_path, "ours"), Authority(tmp_path, "others")
    vouching = new_file(tmp_path / "vouching.pem", ours.file.read_bytes())
    settings = load_settings(grpc_client_ca=vouching)
    ports = {"grpc_port": reserved()}
    another = others.client()
    async with watching() as watch:
        [listener] = create_listeners(settings, service, access_control(), watch, ports, pair)
        port = (await listener.start())["grpc_port"]
        try:
            assert await answers(port, pair, *ours.client())
            assert not await answers(port, pair)
            assert not await answers(port, pair, *another)
            assert not await answers(port, pair, *ours.client(days=-1))
            vouching.write_bytes(ours.file.read_bytes() + others.file.read_bytes())
            while not await answers(port, pair, *another):
                pass
        finally:
            await listener.close()


def test_client_certificate_authority_that_is_invalid_or_without_tls_is_refused_at_the_start(
    service: Service, tmp_path: Path
) -> None:
    pair = certificate(tmp_path / "shown")
    for file, why in ((tmp_path / "none.pem", "No such file"), (pair.key, "no usable certificate")):
        with pytest.raises(errors.SettingsInvalid, match=f"(?i){why}"):
            server_credentials(pair, FileWatcher(), file)
    settings = load_settings(grpc_client_ca=pair.certificate)
    with reserved() as sock, pytest.raises(errors.SettingsInvalid, match="TLS is off"):
        create_listeners(settings, service, access_control(), FileWatcher(), {"grpc_port": sock})


async def test_same_session_id_of_two_owners_is_two_sessions_known_by_their_tokens(
    start: Start,
) -> None:
    unused_s = 3600.0  # the first may wait long for the engine
    port = await start(access_control(Named()), unused_s=unused_s)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        answers = [
            await create(channel)(
                SessionRequest(session_id="same"), metadata=[("authorization", f"Bearer {who}")]
            )
            for who in ("me", "you")
        ]
        listen = recognize(channel)
        for answer in reversed(answers):  # known by the tokens alone
            chunk = AudioChunk(
                session_id="same",
                session_token=answer.token,
                pcm16=sound((0.3, 0.5)),
                is_final=True,
            )
            assert [one.is_final async for one in listen(iter([chunk]))][-1]


async def stream_of_mine(channel: Any) -> Any:
    """A stream with a second of speech, of a session whose client has the token 'me'."""
    me = [("authorization", "Bearer me"), ("session-id", "mine")]
    await create(channel)(SessionRequest(session_id="mine"), metadata=me)
    call = recognize(channel)(metadata=me)
    await call.write(AudioChunk(pcm16=sound((0.3, 1.0))))
    return call


async def status_after_results(call: Any) -> grpc.StatusCode:
    """Read all results: gRPC gives the status after them."""
    with suppress(grpc.aio.AioRpcError):
        while await call.read() is not grpc.aio.EOF:
            pass
    return await call.code()


async def test_revoked_token_ends_its_streams(start: Start) -> None:
    named = Named()
    access = access_control(named)
    port = await start(access)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = await stream_of_mine(channel)
        assert (await call.read()).text
        named.gone = "was revoked"
        access.streams.check_credentials()
        assert await status_after_results(call) is grpc.StatusCode.UNAUTHENTICATED
        assert (await call.details()).startswith("ERR1014 ")


@pytest.mark.parametrize("reason", ["revoked", "longest"])
async def test_open_utterance_of_a_stream_that_the_service_ends_is_final_before_the_status(
    reason: str, start: Start, service: Service
) -> None:
    named, now = Named(), 0.0
    access = access_control(named)
    service.live.now = lambda: now
    port = await start(access)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = await stream_of_mine(channel)
        [session] = service.live.going_on()
        await until(lambda: session.received_s == 1.0)
        if reason == "revoked":
            named.gone = "was revoked"
            access.streams.check_credentials()
        else:
            now = service.settings.live_longest + session.began
            service.live.check_time_limits()
        done = await ended(call)
    assert [one.text for one in done.finals] != []
    assert done.number == ("ERR1014" if reason == "revoked" else "ERR1006")


async def test_token_revoked_while_a_result_is_sent_ends_the_stream(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = Named()
    access = access_control(named)
    write = session.GrpcStream.write_result

    async def revoke_and_write(stream: session.GrpcStream, result: Any) -> None:
        named.gone = "was revoked"
        access.streams.check_credentials()
        await write(stream, result)

    monkeypatch.setattr(session.GrpcStream, "write_result", revoke_and_write)
    port = await start(access)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = await stream_of_mine(channel)
        assert await status_after_results(call) is grpc.StatusCode.UNAUTHENTICATED


async def test_session_without_a_stream_is_dropped_and_another_may_be_created(
    tmp_path: Path,
) -> None:
    async with Inside(tmp_path, live_sessions=2) as inside:
        caller = await inside.caller()
        for name in ("one", "two"):
            assert (await caller.create(name)).status is grpc.StatusCode.OK
        refused = await caller.create("three")
        assert refused.status is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.trailing["error-code"] == "live_full"
        later_s = session.UNUSED_S
        with pytest.MonkeyPatch.context() as patch:
            # real time: the loop's clock, set forward by the whole limit
            now = lambda: time.monotonic() + later_s  # noqa: E731
            patch.setattr(asyncio.get_running_loop(), "time", now)
            await until(lambda: not len(inside.service.live))
        assert (await caller.create("three")).status is grpc.StatusCode.OK
        last = await caller.stream(AudioChunk(is_final=True), session_id="three")
        assert last.status is grpc.StatusCode.OK


async def test_call_past_its_deadline_leaves_no_session(start: Start, service: Service) -> None:
    over = asyncio.Event()

    async def speak() -> AsyncIterator[AudioChunk]:
        yield AudioChunk(pcm16=sound((0.3, 0.1)))
        await over.wait()  # who writes when it is over may be told anything

    async with Caller(await start(access_control())) as caller:
        await caller.create("late")
        call = recognize(caller.channel)(speak(), metadata=[("session-id", "late")], timeout=0.5)
        assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        over.set()
        await until(lambda: not len(service.live))


TALKS = """
import sys
from grpc_client import Client, chunks_of, sound
with Client(int(sys.argv[1])) as client:
    client.create("gone")
    chunks = chunks_of("gone", sound((0.3, 1.0)), then=lambda: True)
    for result in client.open((one.SerializeToString() for one in chunks), "gone"):
        print(result.text, flush=True)
"""


@pytest.mark.posix("signals")
async def test_client_that_answers_no_ping_leaves_no_session(
    start: Start, service: Service
) -> None:
    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", TALKS, str(await start(ping_s=1.0))),
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests/support'}"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert client.stdout is not None
    try:
        assert await client.stdout.readline()
        assert len(service.live) == 1
        client.send_signal(signal.SIGSTOP)  # its system answers for it, and no more
        async with asyncio.timeout(30):  # two seconds are promised; gRPC by itself has a minute
            await until(lambda: not len(service.live))
    finally:
        client.kill()
        await client.communicate()


async def test_metadata_over_the_limit_are_refused_and_a_long_tracestate_is_not(
    start: Start,
) -> None:
    async with Caller(port := await start(access_control()), long="x" * (40 << 10)) as caller:
        assert (await caller.create()).status is grpc.StatusCode.RESOURCE_EXHAUSTED
    async with Caller(port, long="x" * 1024) as caller:
        refused = await caller.create()
    assert refused.status is grpc.StatusCode.INVALID_ARGUMENT
    assert "'long' has 1028 bytes" in refused.details
    async with Caller(port, tracestate="x" * 4096) as caller:
        assert (await caller.create()).status is grpc.StatusCode.OK


def test_peer_address_is_parsed_from_grpcs_form() -> None:
    assert peer_address("ipv4:127.0.0.1:50000") == "127.0.0.1"
    assert peer_address("ipv6:%5B::1%5D:50000") == "::1"
    assert peer_address("ipv6:[::ffff:127.0.0.1]:5") == "::ffff:127.0.0.1"
    assert peer_address("ipv6:[fe80::1%25eth0]:5") == "fe80::1"
    assert peer_address("unix:/run/socket") is None
    assert peer_address("") is None


def test_call_through_a_proxy_is_not_local() -> None:
    origin = request_origin([("x-forwarded-for", "1.2.3.4")], "ipv4:127.0.0.1:5", encrypted=False)
    assert not origin.is_local
    assert request_origin([], "ipv4:127.0.0.1:5", encrypted=False).is_local


def test_generated_stubs_match_the_proto(tmp_path: Path) -> None:
    """Whatever the compiler's version: the same file described."""
    folder = REPOSITORY / "sidecar" / "plugins" / "grpc_stt"
    out = tmp_path / "descriptors"
    assert protoc.main(["", f"-I{folder}", f"--descriptor_set_out={out}", "stt.proto"]) == 0
    written = descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file[0]
    for message in written.message_type:
        for one in (message, *message.nested_type):
            for each in one.field:
                each.ClearField("json_name")  # which only this way of writing has
    there = descriptor_pb2.FileDescriptorProto.FromString(stt_pb2.DESCRIPTOR.serialized_pb)
    assert written == there, "run 'make stubs'"


def test_generated_stubs_are_of_the_oldest_protobuf_version_that_is_allowed() -> None:
    """A runtime takes what its own version generated, and older ones."""
    generated = Path(str(stt_pb2.__file__)).read_text("utf-8")
    of = re.search(r"# Protobuf Python Version: (\d+)\.(\d+)", generated)
    extra = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = extra["optional-dependencies"]["grpc"]
    least = re.search(r"protobuf>=(\d+)\.(\d+),<8", " ".join(wanted))
    assert of is not None
    assert least is not None
    assert of.groups() == least.groups()
