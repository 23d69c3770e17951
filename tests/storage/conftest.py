"""People in a file of one service, and in a database that several share: the same to a test."""

import pytest
from job_fixtures import new_job as new_job
from job_fixtures import recording as recording
from speaker_stores import DATABASE, FILE, Place
from speaker_stores import in_database as in_database
from speaker_stores import in_file as in_file


@pytest.fixture(params=[FILE, DATABASE])
def place(request: pytest.FixtureRequest) -> Place:
    """Each of them."""
    found: Place = request.getfixturevalue(f"in_{request.param}")
    return found
