"""What the OpenAPI page promises, held by requests that schemathesis makes up from it."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from serving import Server

from sidecar.app import create_app
from sidecar.settings import Settings

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
page = schemathesis.openapi.from_dict(create_app(Settings(engine="scripted")).openapi())


@page.parametrize()
@settings(
    max_examples=25,
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
def test_whatever_fits_the_page_or_does_not_gets_an_answer_that_does(
    case: Any, server: Server
) -> None:
    response = case.call(base_url=str(server.client.base_url).rstrip("/"))
    assert response.status_code != 403, "it comes from a client of ours"
    case.validate_response(response, checks=CHECKS)


def test_the_service_lives_on(server: Server) -> None:
    assert server.health()["status"] == "ok"
    assert "Traceback" not in server.log()


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
