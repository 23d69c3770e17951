"""Prediction of job durations, and its file across restarts.

Work is a constant plus a rate for each second of audio; loads are measured separately. The line is
a Theil-Sen estimate (Sen 1968): the median of the slopes between all pairs of jobs. So more than a
quarter of the jobs may be arbitrarily wrong.

The file contains engines, models, precisions and three numbers each; nothing of any recording.
"""

import asyncio
import json
import logging
import statistics
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from sidecar import files
from sidecar.concurrency import ThreadLimiter
from sidecar.errors import SettingsInvalid
from sidecar.workers.loaded_model import DurationKey

log = logging.getLogger(__name__)

DEFAULT_WORK_PER_AUDIO_S = 0.25
"""Work for a second of audio before any measurement: the embedded engine on a slow core."""
USUAL_WORK_PER_AUDIO_S = 0.07
"""The same on two common cores, with diarization: the README's 28.3 s take 1.9 s."""
MIN_JOB_S = 0.2
"""Minimum duration of a job: reading, start and response."""
UNKNOWN_AUDIO_S = 600.0
REMEMBERED_JOBS = 15
"""Measured jobs of a fit. Their medians count, so that one slow job has no effect."""
REMEMBERED_LOADS = 5
"""Measured loads, of which the median counts."""
MIN_MEASURED_JOBS = 3
"""With fewer measured jobs, the fit from before the start is used."""
MIN_LENGTH_RATIO = 1.5
"""Minimum ratio of the durations of two jobs: with similar ones their slope says nothing."""
MIN_SLOPES = 6
"""Minimum number of such pairs: those of four jobs."""

DURATION_FILE_NAME = "pace.json"
MAX_FITS = 64
"""Engines, models and precisions in the file; the last used ones."""
MAX_FILE_BYTES = 64 << 10
SAVE_INTERVAL_S = 60.0
"""Interval of writes, which may be lost with the process."""
WRITE_TIMEOUT_S = 2.0
MAX_DURATION_S = 1e6


@dataclass(frozen=True, slots=True)
class DurationFit:
    """Measured durations: constant seconds, seconds for each second of audio (None: not measured
    yet), seconds of a load."""

    begin_s: float = 0.0
    per_s: float | None = None
    load_s: float = 0.0


DurationFits = Mapping[DurationKey, DurationFit]


class DurationPredictor:
    """Predictor of the seconds of work for a recording, for each precision of the model that is
    loaded, or being loaded."""

    def __init__(
        self,
        key: Callable[[str], DurationKey] = lambda precision: DurationKey(precision=precision),
        earlier_fits: DurationFits | None = None,
    ) -> None:
        """``key``: returns that of the model at a precision. ``earlier_fits``: fits from before the
        start, of this model and others."""
        self._key = key
        self._earlier_fits = dict(earlier_fits or {})
        self._measured: defaultdict[DurationKey, deque[tuple[float, float]]] = defaultdict(
            lambda: deque(maxlen=REMEMBERED_JOBS)
        )
        self._loads: defaultdict[DurationKey, deque[float]] = defaultdict(
            lambda: deque(maxlen=REMEMBERED_LOADS)
        )
        self._fits: dict[DurationKey, DurationFit] = {}
        """Fits computed since the last measurement."""

    def seconds(self, precision: str, audio_s: float | None, guess_s: float | None = None) -> float:
        """Predict the seconds of work of a recording; ``guess_s``, if given, counts until
        a duration was measured."""
        length_s = UNKNOWN_AUDIO_S if audio_s is None else audio_s
        fit = self._fit(self._key(precision))
        if fit.per_s is not None:
            return max(MIN_JOB_S, fit.begin_s + length_s * fit.per_s)
        return max(MIN_JOB_S, length_s * DEFAULT_WORK_PER_AUDIO_S if guess_s is None else guess_s)

    def knows(self, precision: str) -> bool:
        """Return whether a duration was measured."""
        return self._fit(self._key(precision)).per_s is not None

    def load_s(self, precision: str) -> float:
        """Predict the seconds of a load; 0 before any was measured."""
        return self._fit(self._key(precision)).load_s

    def learn(self, precision: str, audio_s: float, work_s: float) -> None:
        """Add the duration of a recording that ran alone in a loaded engine."""
        if audio_s > 0:
            self._measured[self._key(precision)].append((audio_s, work_s))
            self._fits.clear()

    def learn_load(self, precision: str, load_s: float) -> None:
        """Add the duration of a load."""
        self._loads[self._key(precision)].append(load_s)
        self._fits.clear()

    @property
    def fits(self) -> dict[DurationKey, DurationFit]:
        """Return all fits to store; those of this process come last."""
        measured = dict.fromkeys([*self._measured, *self._loads])
        earlier_fits = {key: fit for key, fit in self._earlier_fits.items() if key not in measured}
        return earlier_fits | {key: self._fit(key) for key in measured}

    def _fit(self, key: DurationKey) -> DurationFit:
        if key not in self._fits:
            fit = self._earlier_fits.get(key, DurationFit())
            measured, loads = self._measured.get(key, ()), self._loads.get(key)
            load_s = statistics.median(loads) if loads else fit.load_s
            if measured and (len(measured) >= MIN_MEASURED_JOBS or fit.per_s is None):
                fit = DurationFit(*fit_durations([*measured]))
            self._fits[key] = replace(fit, load_s=load_s)
        return self._fits[key]


def fit_durations(measured: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Return the constant seconds and those for each second of audio, of jobs given as
    (seconds of audio, of work)."""
    slopes = [
        (one[1] - other[1]) / (one[0] - other[0])
        for one, other in combinations(measured, 2)
        if max(one[0], other[0]) >= MIN_LENGTH_RATIO * min(one[0], other[0])
    ]
    if len(slopes) >= MIN_SLOPES and (slope := statistics.median(slopes)) > 0:
        begin_s = statistics.median(work_s - slope * audio_s for audio_s, work_s in measured)
        if begin_s >= 0:
            return begin_s, slope
    return 0.0, statistics.median(work_s / audio_s for audio_s, work_s in measured)


def remaining_s(
    work_s: float, elapsed_s: float, fraction: float | None, resumed: float = 0.0
) -> float:
    """Predict the seconds left of a running job, by its progress (0 to 1); never 0.
    ``resumed``: the progress with which the attempt began.

    The attempt's own pace (``elapsed_s`` for what is done of the job since ``resumed``) has the
    weight of that fraction, and the prediction for such recordings (``work_s``) the rest: at 2 %
    the own pace is mostly the attempt's start.
    """
    if not fraction or fraction <= resumed:
        return max(MIN_JOB_S, work_s * (1.0 - resumed) - elapsed_s)
    total_s = elapsed_s + (1.0 - (fraction - resumed)) * work_s
    return max(MIN_JOB_S, total_s * (1.0 - fraction))


def estimate_remaining_s(
    work_s: float | None, elapsed_s: float, fraction: float | None, resumed: float = 0.0
) -> float | None:
    """Predict the same for users: by the attempt's own pace alone before any such recording was
    measured (``work_s`` is None), and None if there is no progress either."""
    if work_s is None:
        if not fraction or fraction <= resumed:
            return None
        work_s = elapsed_s / (fraction - resumed)
    return remaining_s(work_s, elapsed_s, fraction, resumed)


class DurationFile:
    """File of predicted durations; none without a ``folder``. A broken or
    unwritable file is only logged. ``write_timeout_s``: for `persist`."""

    def __init__(self, folder: Path | None, write_timeout_s: float = WRITE_TIMEOUT_S) -> None:
        self._write_timeout_s = write_timeout_s
        self._path = folder / DURATION_FILE_NAME if folder is not None else None
        self._written_fits: DurationFits = {}
        self._writer = ThreadLimiter("durations", 1)

    def read(self) -> dict[DurationKey, DurationFit]:
        """Return the durations that the last process wrote."""
        if self._path is None or not self._path.exists():
            return {}
        try:
            fits = parse_durations(files.read(self._path, MAX_FILE_BYTES))
        except (SettingsInvalid, ValueError) as error:
            log.warning(
                "the file of predicted job durations cannot be read; predictions start anew: %s",
                error,
            )
            return {}
        self._written_fits = fits
        return fits

    def write(self, fits: DurationFits) -> None:
        """Write the fits if they have changed; this blocks on the disk, unlike `persist`."""
        if self._path is None or fits == self._written_fits:
            return
        self._written_fits = fits
        stored_fits = [asdict(key) | asdict(fit) for key, fit in [*fits.items()][-MAX_FITS:]]
        try:
            files.make_folder(self._path.parent)
            text = json.dumps({"version": 1, "paces": stored_fits}, indent=1)
            files.write(self._path, text.encode())
        except (OSError, SettingsInvalid) as error:
            log.warning("the file of predicted job durations cannot be written: %s", error)

    async def persist(self, fits: DurationFits) -> None:
        """Write the fits; a disk that hangs delays the end of the service only so long."""
        try:
            async with asyncio.timeout(self._write_timeout_s):
                await self._writer.run(self.write, fits)
        except TimeoutError:
            log.warning("the file of predicted job durations cannot be written: the disk hangs")

    async def run(self, predictor: DurationPredictor) -> None:
        """Write the fits at intervals, until cancelled."""
        while True:
            await asyncio.sleep(SAVE_INTERVAL_S)
            await self.persist(predictor.fits)


Seconds = Annotated[float, Field(ge=0, le=MAX_DURATION_S, allow_inf_nan=False)]


class _StoredFit(BaseModel, strict=True):
    """Fit and its key in the file."""

    engine: str
    model: str
    precision: str
    begin_s: Seconds
    per_s: Seconds | None
    load_s: Seconds


class _StoredFits(BaseModel, strict=True):
    """Content of the file."""

    version: Literal[1]
    paces: list[_StoredFit]


def parse_durations(data: bytes) -> dict[DurationKey, DurationFit]:
    """Parse the durations of a file.

    Raises:
        ValueError: the content is not of this format.
    """
    return {
        DurationKey(one.engine, one.model, one.precision): DurationFit(
            one.begin_s, one.per_s, one.load_s
        )
        for one in _StoredFits.model_validate_json(data).paces[-MAX_FITS:]
    }
