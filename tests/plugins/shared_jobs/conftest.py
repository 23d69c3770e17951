"""Recordings for jobs of several services, and two of those."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from job_fixtures import hold as hold
from job_fixtures import new_job as new_job
from job_fixtures import recording as recording
from shared_job_services import Service, service
from speaker_stores import in_database as in_database
from speaker_stores import in_file as in_file


@pytest.fixture
async def one(journal: str, tmp_path: Path) -> AsyncIterator[Service]:
    """A service that shares its jobs."""
    async with service(journal, tmp_path) as one:
        yield one


@pytest.fixture
async def other(one: Service, journal: str, tmp_path: Path) -> AsyncIterator[Service]:
    """Another, which it shares them with."""
    async with service(journal, tmp_path, "other") as other:
        yield other
