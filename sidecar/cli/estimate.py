"""Command `estimate`."""

from __future__ import annotations

import os
from pathlib import Path

from sidecar.auth.identity import ANONYMOUS
from sidecar.cli.audio_input import open_file
from sidecar.cli.backends import ServiceTarget, client_of, own_service
from sidecar.cli.common_options import argument
from sidecar.cli.output import PROGRAM, printable
from sidecar.cli.transcribe import PrecisionOption

HELP = f"""
Say whether a recording fits into memory, and how long it takes.

The exit code is 1 where it does not fit.

Examples:

* `{PROGRAM} estimate meeting.opus`
* `{PROGRAM} estimate meeting.opus --precision int8 --server http://127.0.0.1:8765`
"""


async def estimate(
    file: Path = argument(..., "A recording.", metavar="FILE"),
    precision: PrecisionOption = None,
    *,
    where: ServiceTarget,
) -> int:
    """Print the estimate in a sentence; the exit code is 1 where the recording does not fit."""
    options = {"precision": precision} if precision is not None else {}
    with open_file(file) as source:
        if where.server:
            with os.fdopen(os.dup(source.fd), "rb") as recording:
                async with client_of(where) as client:
                    answer = await client.estimate(recording, **options)
            fits, sentence = answer["fits"], answer["sentence"]
        else:
            async with own_service() as service:  # the engine is not loaded for this
                measured = await service.submissions.measure(ANONYMOUS, source)
                forecast = service.forecast(measured, service.options(options))
            fits, sentence = forecast.fits, forecast.sentence
    print(f"{printable(str(file))}: {sentence}")
    return 0 if fits else 1
