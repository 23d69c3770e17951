"""Catalogue of every error that a client can meet.

One is a class: a stable ``code``, a ``ErrorKind`` that each transport translates into its own
language, a default ``detail``, and a ``hint`` that says what to do next. They lie by what they are
about, a file each; `docs/errors.md` is written from them.
"""

from __future__ import annotations

from sidecar.errors.access_errors import *
from sidecar.errors.audio_errors import *
from sidecar.errors.conversation_errors import *
from sidecar.errors.engine_errors import *
from sidecar.errors.error_base import *
from sidecar.errors.job_errors import *
from sidecar.errors.live_errors import *
from sidecar.errors.request_errors import *
from sidecar.errors.service_errors import *
from sidecar.errors.upstream_errors import *
