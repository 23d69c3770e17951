import re
from collections.abc import AsyncIterator

import httpx
import pytest

from sidecar.config.settings import Settings
from sidecar.server.app import create_app


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(Settings(engine="scripted")))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        yield client


async def test_docs_page_loads_nothing_from_other_machines_and_may_not_be_framed(
    client: httpx.AsyncClient,
) -> None:
    page = await client.get("/docs")
    assert page.status_code == 200
    assert page.headers["content-security-policy"] == "frame-ancestors 'none'"
    assert page.headers["x-frame-options"] == "DENY"
    addresses = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert addresses
    for address in addresses:
        assert address.startswith(("/", "data:"))
        if address.startswith("/"):
            found = await client.get(address)
            assert found.status_code == 200
            assert len(found.content) > 10_000


async def test_every_operation_has_a_summary_and_a_response_schema(
    client: httpx.AsyncClient,
) -> None:
    schema = (await client.get("/openapi.json")).json()
    operations = [
        operation for methods in schema["paths"].values() for operation in methods.values()
    ]
    assert {"/transcribe", "/health", "/reload-model", "/v1/jobs/{job_id}"} <= set(schema["paths"])
    for operation in operations:
        assert operation["summary"]
        good = {status: answer for status, answer in operation["responses"].items() if status < "3"}
        assert good
        for status, answer in good.items():
            if status == "204":
                assert "content" not in answer
                continue
            assert answer["content"]
            for form in answer["content"].values():
                assert form["schema"]
    body = schema["paths"]["/transcribe"]["post"]["requestBody"]["content"]
    assert body["application/json"]["example"]["audio_path"]
    assert "audio" in body["multipart/form-data"]["schema"]["properties"]
