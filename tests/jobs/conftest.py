"""Recordings for jobs."""

from job_fixtures import hold as hold
from job_fixtures import new_job as new_job
from job_fixtures import recording as recording
