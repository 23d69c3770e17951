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
        chunk_requests = ChunkRequests(upstream_options(settings))
    except errors.SidecarError as error:
        yield CheckFinding("upstream", CheckState.BAD, error.detail, error.hint)
        return
    for upstream, failure in chunk_requests.run(chunk_requests.check_upstreams()).result():
        if failure is not None:
            yield CheckFinding("upstream", CheckState.WARNING, failure.detail, failure.hint)
        elif upstream.dialect is not None:
            own = "" if upstream.dialect.diarizes else "; speakers are told apart here"
            text = f"{upstream.name} answers ({upstream.dialect.name}){own}"
            yield CheckFinding("upstream", CheckState.GOOD, text)
