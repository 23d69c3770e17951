"""A network between a client and a real service: what it may do to them, done on purpose."""

import contextlib
import socket
import threading


class Network:
    """Forwards connections to ``port``. ``cuts``: after how many bytes of answer each of the first
    connections ends (0: the answer is lost); those that follow are left alone."""

    def __init__(self, port: int, cuts: list[int]) -> None:
        self._to = port
        self._cuts = cuts
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.connections = 0
        self.sent = b""
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                cut = self._cuts[self.connections] if self.connections < len(self._cuts) else None
                self.connections += 1
                there = socket.create_connection(("127.0.0.1", self._to))
                for work in ((client, there, None, True), (there, client, cut, False)):
                    threading.Thread(target=self._carry, args=work, daemon=True).start()

    def _carry(self, source: socket.socket, to: socket.socket, cut: int | None, up: bool) -> None:
        left = cut
        with contextlib.suppress(OSError):
            while piece := source.recv(1 << 16):
                if up:
                    self.sent += piece
                if left is not None:
                    piece, left = piece[:left], left - len(piece[:left])
                to.sendall(piece)
                if left == 0:
                    break
        for end in (source, to):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def network(port: int, *cuts: int) -> contextlib.closing[Network]:
    return contextlib.closing(Network(port, list(cuts)))
