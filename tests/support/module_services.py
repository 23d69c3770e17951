"""Services that all tests of a module share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from service_process import Server


def service_of_module(**settings: Any) -> Any:
    """Return a fixture: a service with these settings, as `Server` takes them."""

    @pytest.fixture(scope="module")
    def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
        with Server(tmp_path_factory.mktemp("service"), **settings) as running:
            yield running

    return service
