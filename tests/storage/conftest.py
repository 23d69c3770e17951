"""People in a file of one service, and in a database that several share: the same to a test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from job_fixtures import new_job as new_job
from job_fixtures import recording as recording
from postgres import Cluster
from speaker_stores import DATABASE, FILE, InDatabase, InFile, Place


@pytest.fixture
async def in_file(tmp_path: Path) -> AsyncIterator[InFile]:
    """People in the file of one service."""
    place = InFile(tmp_path / "people")
    yield place
    await place.close()


@pytest.fixture
async def in_database(postgres_cluster: Cluster, fresh_journal: str) -> AsyncIterator[InDatabase]:
    """People in a database whose files are of this test alone."""
    place = InDatabase(postgres_cluster, fresh_journal)
    yield place
    await place.close()


@pytest.fixture(params=[FILE, DATABASE])
def place(request: pytest.FixtureRequest) -> Place:
    """Each of them."""
    found: Place = request.getfixturevalue(f"in_{request.param}")
    return found
