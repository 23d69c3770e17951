"""Check of the servers of the engine 'upstream', for the command `doctor`."""

from collections.abc import Iterator

from sidecar import errors
from sidecar.config.settings import Settings
from sidecar.plugins.upstream.chunk_requests import ChunkRequests
from sidecar.plugins.upstream.settings import upstream_options
from sidecar.service.system_checks import CheckFinding, CheckState


def check_upstreams(settings: Settings) -> Iterator[CheckFinding]:
    """Query each server; yield whether it answers, and as what."""
    try:
        upstreams = ChunkRequests(upstream_options(settings))
    except errors.SidecarError as error:
        yield CheckFinding("upstream", CheckState.BAD, error.detail, error.hint)
        return
    for server, wrong in upstreams.run(upstreams.visit()).result():
        if wrong is not None:
            yield CheckFinding("upstream", CheckState.WARNING, wrong.detail, wrong.hint)
        elif server.dialect is not None:
            own = "" if server.dialect.diarizes else "; speakers are told apart here"
            text = f"{server.name} answers ({server.dialect.name}){own}"
            yield CheckFinding("upstream", CheckState.GOOD, text)
