"""A server that speaks S3, asked call by call.

Who we are to it, how long it is waited for, and what its errors mean.

Keys come by the standard chain of AWS' libraries: the environment, ~/.aws, a role of the machine or
the pod. They are in no `repr`, no line of the log, and no error.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

from sidecar.errors import SettingsInvalid

log = logging.getLogger(__name__)

CONNECT_S = 3.0
"""So long a server may take to answer at all."""
READ_S = 15.0
"""So long it may say nothing in the middle of a call."""
TRIES = 3
"""So often a call is made before it is given up, with pauses of up to a second and then two."""
CONNECTIONS = 16
"""Kept open, for as many threads as there are."""
REGION = "us-east-1"
"""What servers take that have none."""


class Away(Exception):
    """It does not answer, or not now; nobody knows whether what was asked was done."""


class Refused(Exception):
    """It answers, and says no."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.code, self.status = code, status


class Server:
    """One server; from any thread."""

    def __init__(self, endpoint: str | None, region: str | None) -> None:
        """``endpoint``: its address, that of AWS if there is none; it is spoken to by plain HTTP
        where that says so, and by path (``address/bucket/key``).

        Raises:
            errors.SettingsInvalid: what speaks to it is not installed, or is told nonsense.
        """
        try:
            import botocore.session
            from botocore.config import Config
            from botocore.exceptions import BotoCoreError
        except ImportError:
            raise SettingsInvalid(
                "Recordings are to be kept in a bucket, and the package 'botocore' is missing.",
                hint="pip install 'vibevoice-asr[s3]', or start without --uploads.",
            ) from None
        try:
            session = botocore.session.get_session()
            self._client = session.create_client(
                "s3",
                endpoint_url=endpoint,
                region_name=region or session.get_config_variable("region") or REGION,
                config=Config(
                    connect_timeout=CONNECT_S,
                    read_timeout=READ_S,
                    retries={"mode": "standard", "total_max_attempts": TRIES},
                    max_pool_connections=CONNECTIONS,
                    ignore_configured_endpoint_urls=True,  # one setting says where it is
                    # Each part is signed, so none is taken that is not what was sent; servers
                    # that are not AWS mostly do not know its newer sums.
                    s3={
                        "addressing_style": "path" if endpoint else "auto",
                        "payload_signing_enabled": True,
                    },
                    request_checksum_calculation="when_required",
                    response_checksum_validation="when_required",
                ),
            )
        except (BotoCoreError, ValueError) as error:
            raise SettingsInvalid(f"The object storage cannot be used: {error}") from None

    def ask(self, call: str, **what: Any) -> Mapping[str, Any]:
        """Make a call, by the library's name for it. A body that is read (`get_object`) is read
        here, and whole.

        Raises:
            FileNotFoundError: there is no such object.
            Away, Refused: it was not done, as far as is known.
        """
        from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

        pause_s = 0.5
        for last in (False,) * (TRIES - 1) + (True,):
            try:
                answer = dict(getattr(self._client, call)(**what))
            except ClientError as error:
                raise _meant(error.response) from None
            except (BotoCoreError, OSError) as error:
                raise Away(_said(error)) from None
            if "Body" not in answer:
                break
            try:
                with answer["Body"] as body:
                    answer["Body"] = body.read()
                break
            except (BotoCoreError, HTTPClientError, OSError) as error:  # no try covers the body
                if last:
                    raise Away(_said(error)) from None
            time.sleep(pause_s)
            pause_s *= 2
        return answer


def _meant(response: Mapping[str, Any]) -> Exception:
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code == "NoSuchKey" or (code == "404" and status == 404):
        return FileNotFoundError("there is no such object")
    if status >= 500 and status != 507:
        return Away(code)
    return Refused(code, status)


def _said(error: Exception) -> str:
    """The name of the trouble; what else is in it names addresses."""
    return type(error).__name__
