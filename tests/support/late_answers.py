"""Clients that time out once their job runs, and hang up."""

import socket
from collections.abc import Callable
from threading import Lock

import httpx
from service_process import Server, wait_until


def hang_up_at_work(server: Server, request: httpx.Request, works: Callable[[], bool]) -> None:
    """Send a request, and hang up once its job ``works``."""
    head = [f"POST {request.url.path} HTTP/1.1"]
    head += [f"{name}: {said}" for name, said in request.headers.items()]
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall("\r\n".join([*head, "\r\n"]).encode() + request.read())
        wait_until(works, "its job runs")


class FirstAnswersTooLate(httpx.BaseTransport):
    """A network on which the first requests time out, each once its job ``works``; later ones go
    to ``then``."""

    def __init__(
        self, server: Server, works: Callable[[], bool], late: int = 1, then: Server | None = None
    ) -> None:
        self._server, self._works, self._late = server, works, late
        self._then = then or server
        self._inner, self._lock = httpx.HTTPTransport(), Lock()
        self.sent: list[httpx.Headers] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            self.sent.append(request.headers)
            late = len(self.sent) <= self._late
        request.extensions.pop("timeout")
        if not late:
            request.url = request.url.copy_with(port=self._then.port)
            return self._inner.handle_request(request)
        hang_up_at_work(self._server, request, self._works)
        raise httpx.ReadTimeout("too late", request=request)

    def close(self) -> None:
        self._inner.close()
