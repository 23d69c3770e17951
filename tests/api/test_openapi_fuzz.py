"""What the OpenAPI page promises, held by requests that schemathesis makes up from it."""

from collections.abc import Iterator
from typing import Any

import hypothesis.core
import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from hypothesis.vendor.pretty import RepresentationPrinter
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from service_process import PATIENCE_S, Server

from sidecar.config.settings import Settings
from sidecar.server.app import create_app

pytest_plugins = ["schemathesis.pytest.plugin"]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
KEY = "0123456789abcdef0123456789abcdef"
TOKEN = "a token that nobody guesses"
page = schemathesis.openapi.from_dict(create_app(Settings(engine="scripted")).openapi())


@pytest.fixture(scope="module")
def full_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service in which nothing is off."""
    home = tmp_path_factory.mktemp("fuzz")
    on = {"people": "true", "data_dir": home, "admin": "true"}
    server = Server(home, journal_key=KEY, token=TOKEN, **on)
    server.env |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(home / "hub")}  # it pulls models, too
    with server as running:
        yield running


@page.parametrize()
@settings(
    max_examples=10,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_every_generated_request_gets_an_answer_that_fits_openapi(
    case: Any, full_server: Server
) -> None:
    mine = {"Authorization": f"Bearer {TOKEN}"}
    url = str(full_server.client.base_url).rstrip("/")
    response = case.call(base_url=url, headers=mine, timeout=PATIENCE_S)
    if case.path != "/admin/load_model":  # which takes no folder that nobody named
        assert response.status_code != 403, "it comes from a client of ours"
    case.validate_response(response, checks=CHECKS)


def test_service_is_healthy_without_a_traceback_after_all_generated_requests(
    full_server: Server,
) -> None:
    assert full_server.health()["status"] == "ok"
    assert "Traceback" not in full_server.log()


pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]


# schemathesis has silenced Hypothesis' printer in the whole process: a property that fails in
# another file would not show its example.
hypothesis.core.RepresentationPrinter = RepresentationPrinter
