"""Catalogue of all errors that a client can get.

Each error is a class with a stable ``code``, a default ``detail``, and a ``hint`` with the next
step for the user. It also has an ``ErrorKind``, which each transport maps to its own statuses.
There is a file for each subject, and one in a plugin (`Plugin.errors`); `docs/errors.md` is
generated from the classes.
"""

from sidecar.errors.access_errors import *
from sidecar.errors.audio_errors import *
from sidecar.errors.engine_errors import *
from sidecar.errors.error_base import *
from sidecar.errors.job_errors import *
from sidecar.errors.live_errors import *
from sidecar.errors.request_errors import *
from sidecar.errors.service_errors import *
