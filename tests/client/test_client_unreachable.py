"""The Python client says why no connection came about: the name, the port, or TLS."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from service_process import counting_listener, free_port
from vibevoice_asr_client import AsyncClient, Client, ConnectionLost, Retry, ServiceUnreachable
from vibevoice_asr_client.problems import error_of
from vibevoice_asr_client.vvv import VibevoiceClient

from sidecar import errors
from sidecar.cli.remote_service import translate_client_errors

ONCE = Retry(0)


@contextmanager
def without_tls() -> Iterator[int]:
    """A server that answers what it does not understand, as one without TLS does."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    taken, _ = listener.accept()
                except OSError:
                    return
                with taken:
                    taken.recv(1024)
                    taken.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]
        with suppress(OSError):  # of Windows, where its close ends it
            listener.shutdown(socket.SHUT_RDWR)


async def said(url: str) -> set[str]:
    """What three ways to ask say of an address."""
    told = set()
    with pytest.raises(ServiceUnreachable) as waits, Client(url, retry=ONCE) as client:
        client.health()
    told.add(waits.value.detail)
    async with AsyncClient(url, retry=ONCE) as both:
        with pytest.raises(ServiceUnreachable) as asks:
            await both.health()
        told.add(asks.value.detail)
        with pytest.raises(ServiceUnreachable) as speaks:
            async with both.live():
                pass
        told.add(speaks.value.detail)
    return told


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("there-is-no-such-name.invalid", "the name is not found"),
        ("127.0.0.1", "the connection is refused"),
        ("localhost", "the connection is refused"),
    ],
)
async def test_address_without_a_server_is_an_error_that_says_why(host: str, why: str) -> None:
    url = f"http://{host}:{free_port()}"
    assert await said(url) == {f"No service answers at {url}: {why}."}


async def test_https_to_a_service_without_tls_is_an_error_that_says_so() -> None:
    with without_tls() as port:
        url = f"https://127.0.0.1:{port}"
        assert await said(url) == {f"No service answers at {url}: what is there speaks no TLS."}


@pytest.mark.integration
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_key_log_that_cannot_be_opened_is_a_warning_of_the_client(
    scheme: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"{scheme}://127.0.0.1:9"
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "none" / "keys.log"))
    with pytest.warns(RuntimeWarning, match=r"keys.log is ignored: No such file"):
        VibevoiceClient(url, "t")
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path))
    with (
        pytest.warns(RuntimeWarning, match="is ignored: (Is a directory|Permission denied)"),
        Client(url, retry=ONCE) as client,
        pytest.raises(ServiceUnreachable),
    ):
        client.health()


def test_connection_broken_at_plain_http_suggests_tls() -> None:
    with (
        counting_listener() as (port, _),
        Client(f"http://127.0.0.1:{port}", retry=ONCE) as client,
        pytest.raises(ConnectionLost) as told,
    ):
        client.health()
    assert "https://" in told.value.hint


def test_connection_broken_after_an_answer_does_not_suggest_tls() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            for reply in (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", b""):
                with listener.accept()[0] as taken:
                    taken.recv(1024)
                    taken.sendall(reply)

        threading.Thread(target=answer_once, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with Client(url, retry=ONCE) as client:
            client.health()
            with pytest.raises(ConnectionLost) as told:
                client.health()
    assert told.value.hint == ""


def test_command_without_token_says_how_to_give_one() -> None:
    said = {"code": "token_missing", "detail": "This service requires a token.", "hint": "Send 'A'"}
    with pytest.raises(errors.TokenMissing) as refused, translate_client_errors():
        raise error_of(said, 401)
    assert refused.value.hint == "Set VIBEVOICE_CLIENT_TOKEN=@FILE, or use --token @FILE."
