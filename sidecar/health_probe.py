"""Health check of the container image: `python -m sidecar.health_probe`, exit code 0 if healthy.

It knows the port by the environment. It asks `vibevoice-asr status`, which takes ten times the
processor, only if that is not enough: a settings file may set TLS or another port.
"""

import os
import socket
import sys

TIMEOUT_S = 4.0
NEED_SETTINGS = ("VIBEVOICE_CONFIG", "VIBEVOICE_TLS", "VIBEVOICE_TLS_KEY")
"""Variables with which the address is not known without all settings."""


def is_healthy(port: int) -> bool:
    """Return whether the service at the port answers that it is healthy."""
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as sock:
            sock.sendall(b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n")
            return sock.recv(12).startswith(b"HTTP/1.1 200")
    except OSError:
        return False


def main() -> int:
    """Return the exit code, or become `vibevoice-asr status`."""
    everywhere = os.environ.get("VIBEVOICE_HOST") in ("0.0.0.0", "127.0.0.1")  # noqa: S104
    known = everywhere and not set(NEED_SETTINGS) & set(os.environ)
    if not (known and is_healthy(int(os.environ.get("VIBEVOICE_PORT", "8765")))):
        os.execvp("vibevoice-asr", ["vibevoice-asr", "status"])  # noqa: S606, S607
    return 0


if __name__ == "__main__":
    sys.exit(main())
