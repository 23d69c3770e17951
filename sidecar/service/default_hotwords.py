"""Hotwords of a job that its client did not send: of the host, the token, and the owner's names."""

from collections.abc import Iterable, Sequence
from dataclasses import replace

from sidecar.interfaces.engine_interface import EngineSpec, TranscribeOptions, join_prompt
from sidecar.interfaces.request_fields import MAX_PROMPT_CHARACTERS
from sidecar.interfaces.request_options import split_hotwords
from sidecar.jobs.job_record import JobState
from sidecar.jobs.job_store import JobFilter, JobStore
from sidecar.transcripts.corrected_names import corrected_names

MAX_HOTWORDS = 50
"""Hotwords of a job with the default ones; more are left out, but not those of the request."""
MAX_CORRECTED_JOBS = 20
"""Jobs in whose edits names are looked up, the newest."""
_EDITED = JobFilter(states=frozenset({JobState.DONE}))


def with_defaults(options: TranscribeOptions, names: Iterable[str]) -> TranscribeOptions:
    """Return the options with ``names`` as further hotwords, the first ones if there is no place
    for all. Case does not tell two apart."""
    hotwords = {one.casefold(): one for one in options.hotwords}
    free = MAX_PROMPT_CHARACTERS - len(join_prompt(options.prompt, options.hotwords))
    for name in (part for one in names for part in split_hotwords(one)):
        if len(hotwords) >= MAX_HOTWORDS:
            break
        if name.casefold() not in hotwords and (free := free - len(name) - 2) >= 0:
            hotwords[name.casefold()] = name
    return replace(options, hotwords=tuple(hotwords.values()))


class DefaultHotwords:
    """Default hotwords of jobs: those of the client's token, of the host, of the owner's edits, and
    names of enrolled speakers, in this order."""

    def __init__(self, of_host: Sequence[str], store: JobStore | None) -> None:
        """``store``: None if its lists have no edits."""
        self._of_host, self._store = of_host, store

    async def added(
        self, options: TranscribeOptions, owner: str, spec: EngineSpec
    ) -> TranscribeOptions:
        """Return the options of a starting job of an owner, which have the enrolled speakers, with
        default hotwords. Names of the owner go only to an engine that takes hotwords without a
        prompt, where a list that nobody says costs no accuracy
        (docs/decisions/recognition-parameters.md), and to none if the job is not to identify
        speakers."""
        names = [*options.token_hotwords, *self._of_host]
        if options.recognise and spec.hotwords:
            names += await self._corrected(owner)
            names += [one.name for one in options.known_voices]
        return with_defaults(options, names) if names else options

    async def _corrected(self, owner: str) -> list[str]:
        if self._store is None:
            return []
        jobs = await self._store.list(owner, _EDITED)
        edited = [one for one in jobs if one.history.applied and one.transcript is not None]
        edited.sort(key=lambda one: one.touched, reverse=True)
        return [
            name
            for one in edited[:MAX_CORRECTED_JOBS]
            if one.transcript is not None
            for name in corrected_names(one.history, one.transcript)
        ]
