"""Load test of a running service over its protocols: `vibevoice-asr bench`.

It imports the client and nothing of the service. Python 3.11, psutil, websockets and numpy; grpcio
only for gRPC.
"""


class LoadTestInvalid(Exception):
    """Option of a load test that cannot be used; ``hint``: what to do."""

    def __init__(self, detail: str, *, hint: str) -> None:
        self.detail, self.hint = detail, hint
        super().__init__(detail)
