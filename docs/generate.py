"""Write the pages and the plot that come from the code: `python docs/generate.py [--check]`."""

import ast
import json
import re
import sys
import textwrap
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from asyncapi import asyncapi
from client_types import client_files
from limits import PAGES, limits_page
from models import models_page, models_plot
from pydantic import BaseModel

from sidecar import errors
from sidecar.api.http.error_responses import STATUS
from sidecar.api.http.openapi import OPTIONS
from sidecar.api.transcribe_routes import TranscribeMetadata, TranscribeSegment
from sidecar.cli.common_options import SettingFlag, describe, described
from sidecar.cli.output import EXIT_CODES
from sidecar.config.setting_types import MAX_SETTING, MIN_SETTING
from sidecar.errors import ErrorKind
from sidecar.plugins import load_settings, settings_class
from sidecar.server.app import create_app

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
CLIENT_CODES = "../clients/python/src/vibevoice_asr_client/codes.py"
ENV_EXAMPLE = "../deploy/env.example"
MARK = "<!-- Written by docs/generate.py. Change the code, then run it. -->"


ENV_WIDTH = 98
ENV_HEAD = """\
# Settings of vibevoice-asr: what does not begin with '#' counts. As it stands nothing
# is set, and what each line has is the default (nothing behind '=': unset). Where secrets are
# in it: chmod 600.
# Written by docs/generate.py. Change the code, then run it.
"""


def settings_page() -> str:
    """Every setting with its flag, variable, values and default, by what it is about."""
    sections = "".join(
        _section((group.__doc__ or "").partition("\n")[0], map(_setting_line, described(group)))
        for group in settings_class().groups()
    )
    return f"""{MARK}
# Settings

For operators, hosts and users. The setting `live_grace`, for example, is

- a flag of `vibevoice-asr serve`: `--live-grace 30s` (of yes/no: `--keep-jobs`, `--no-keep-jobs`);
- a variable: `VIBEVOICE_LIVE_GRACE=30s`;
- a line of a TOML file: `live_grace = "30s"`. The file is the one that `--config` or
  `VIBEVOICE_CONFIG` names, else `config.toml` in the user's
  [folder of settings](upgrading.md#folders-of-a-user).

Flags win over variables, variables over the file, the file over the defaults. With an unknown or
invalid setting the service does not start (`settings_invalid`).

A duration is a number of seconds or has a unit: `90`, `10m`, `1.5h`, `2d` (in TOML in quotes). A
number is 0, or from {MIN_SETTING:f} to {MAX_SETTING:,}; many have narrower limits. Limits whose
default is for services that other machines can reach are off on the loopback. A yes/no is no. In a
path `~` is the home folder.
{sections}"""


def _setting_line(flag: SettingFlag) -> str:
    values = ", ".join(f"`{choice}`" for choice in flag.choices) or flag.value
    default = f"; default `{flag.default}`" if flag.default not in ("none", "no", "") else ""
    return f"- `{flag.name}` ({values}{default}): {flag.description}\n"


def env_example() -> str:
    """Every setting as a line of a file for systemd, Docker or a shell, with its default."""
    parts = []
    for flag in describe():
        value = "" if flag.default == "none" else flag.default
        kind = ", ".join(flag.choices) or flag.value
        said = f"{flag.description} ({kind})" if kind else flag.description
        words = textwrap.wrap(said, ENV_WIDTH, break_long_words=False, break_on_hyphens=False)
        parts.append("".join(f"# {line}\n" for line in words) + f"#{flag.env}={value}\n")
    return ENV_HEAD + "\n".join(["", *parts])


def errors_page() -> str:
    """Every error with its code, status, detail and exit code, by the files that they are in."""
    fields: dict[str, list[type[errors.SidecarError]]] = {}
    for error in errors.all_errors():
        fields.setdefault(_first_line(error), []).append(error)
    sections = "".join(
        _section(title, map(_error_line, known)) for title, known in sorted(fields.items())
    )
    numbers: dict[int, list[str]] = {}
    for code, number in EXIT_CODES.items():
        numbers.setdefault(number, []).append(f"`{code}`")
    exits = "".join(f"- {number}: {', '.join(codes)}\n" for number, codes in numbers.items())
    return f"""{MARK}
# Errors

For developers of clients, and users who meet one. Over HTTP an error is `application/problem+json`
(RFC 9457) with a `code` that does not change, a `detail` (what was wrong; below as it usually is)
and a `hint` (what to do); if it will pass, a `Retry-After` header says when. The number is the HTTP
status; foreign protocols have codes of their own.

On the command line an error is one line on stderr. The exit code is 1; of a command line that is
not understood (an unknown option, a missing argument) 2, of Ctrl-C 130, and

{exits}{sections}"""


def _error_line(error: type[errors.SidecarError]) -> str:
    return f"- `{error.code}` ({STATUS[error.kind]}): {error.default_detail}\n"


def _section(title: str, lines: Iterable[str]) -> str:
    """A heading and a list; ``title``: "Heading: what is below it."."""
    return f"\n## {title.partition(': ')[0]}\n\n{''.join(lines)}"


def _first_line(kind: type) -> str:
    """What the file says of itself that a class is in."""
    return (sys.modules[kind.__module__].__doc__ or "").partition("\n")[0]


FAMILIES: Mapping[ErrorKind, str] = {
    ErrorKind.MALFORMED: "Refused",
    ErrorKind.UNPROCESSABLE: "Refused",
    ErrorKind.UNSUPPORTED: "Refused",
    ErrorKind.METHOD: "Refused",
    ErrorKind.UPGRADE: "Refused",
    ErrorKind.TOO_LARGE: "TooLarge",
    ErrorKind.HEADERS_TOO_LARGE: "TooLarge",
    ErrorKind.TIMEOUT: "Busy",
    ErrorKind.NOT_FOUND: "NotFound",
    ErrorKind.FORBIDDEN: "Forbidden",
    ErrorKind.UNAUTHORIZED: "Unauthorized",
    ErrorKind.CONFLICT: "Conflict",
    ErrorKind.PRECONDITION: "Conflict",
    ErrorKind.RANGE: "Refused",
    ErrorKind.CANCELLED: "Cancelled",
    ErrorKind.BUSY: "Busy",
    ErrorKind.LIMITED: "Busy",
    ErrorKind.STORAGE_FULL: "OutOfSpace",
    ErrorKind.WONT_FIT: "OutOfSpace",
    ErrorKind.FAILED: "Failed",
}
"""By what the Python client groups errors."""


def client_codes() -> str:
    """The Python client's module of exceptions, one for every code."""
    known = sorted(errors.all_errors(), key=lambda error: error.code)
    names = {
        error.code: "".join(part.capitalize() for part in error.code.split("_")) for error in known
    }
    classes = "".join(
        f"\n\nclass {names[error.code]}(errors.{FAMILIES[error.kind]}):\n"
        f'    """{error.default_detail}"""\n\n    known_code = "{error.code}"\n'
        for error in known
    )
    table = "".join(f'    "{error.code}": {names[error.code]},\n' for error in known)
    return f'''"""An exception for every code of docs/errors.md, named as the code is.

Written by docs/generate.py. Change the code, then run it.
"""

from __future__ import annotations

from typing import Mapping, Type

from vibevoice_asr_client import errors
{classes}

BY_CODE: Mapping[str, Type[errors.ServiceError]] = {{
{table}}}
'''


def http_api_page() -> str:
    """Every HTTP request that the core answers, from its OpenAPI document."""
    core = load_settings(engine="scripted", plugins="monitor")  # a plugin without routes
    paths = create_app(core).openapi()["paths"]
    rows = "".join(
        f"- `{method.upper()} {path}`: {said['summary']}\n"
        for path, methods in sorted(paths.items())
        for method, said in methods.items()
        if not path.startswith(("/healthz", "/v1/page/"))
    )
    fields = "".join(_field_line(name, schema) for name, schema in OPTIONS.items())
    return f"""{MARK}
# HTTP API

For developers of clients. Parameters, bodies and examples: `/docs` of a running service,
`/openapi.json` for generators (both need the token). Besides: [probes](operations.md#health), and
what [plugins](plugins.md) and the page add.

{rows}
## Fields of transcribe

Of `POST /transcribe` and `POST /v1/jobs`: JSON with `audio_path`, or a form with a file `audio`.
Beside `hotwords` jobs get [default ones](people.md#default-hotwords).
The embedded engine takes them as they are written; it ignores `prompt`, `temperature`,
`max_tokens`, `windows`.
VibeVoice-ASR ignores `num_speakers`, and takes `language` for the name of what it hears.
`context` is `prompt`, and `speakers` is `num_speakers`.

{fields}
**Separate channels** are for calls and interviews with a microphone for each person (`transcribe
call.wav --channels separate --channel-names "Agent, Caller"`). Each channel is transcribed
alone, so what two people say at once stays whole; the segments in order of time are the dialogue.
The `name` of a segment is that of its channel, with a number if several people speak in it (`Left
1`); `diarize=false` makes each channel one speaker, with less work and, with bleed,
[fewer errors](performance.md#the-embedded-engine). Each channel counts as a recording in predicted
time and limits. A channel that has only bleed is silenced. Channels with the same sound
(`channels_same`), mono parts and silent ones are transcribed once or not at all.

## Fields of the answer

The transcript of a job lacks `processing_time` and `job_id`.

**Confidence** (`confidence`, 0.001 to 1, also in live finals) is the geometric mean of the
probabilities that the model gave the tokens of a text. There is none for corrected text, music and
noise, from Voxtral and from servers with OpenAI's API. The embedded engine's is calibrated: over
2,016 words the confidence and the share of right words differ by 0.02 on average, and below 0.9
more words are right than it says (`python -m bench.accuracy --no-library --confidence`):

| confidence of the word from | 0.9 | 0.8 | 0.7 | 0.6 | 0.5 | 0 |
| --- | --- | --- | --- | --- | --- | --- |
| words | 1,697 | 127 | 83 | 44 | 38 | 27 |
| right, % | 99 | 92 | 86 | 80 | 79 | 48 |

That of other engines is not: compare it within one model only. Words below 0.7 have a dotted line
on the page and, where word times were asked for, the class `doubtful` in WebVTT:
`<c.doubtful>less</c>`.

**Language** (`language` of a segment) is what Whisper detected in its window, `en` from the
embedded engine, and with VibeVoice-ASR the language that was asked for, else that of the text.

**Chinese** has the script of the `language` that was asked for, from every engine, in recordings
and live: `zh`, `zh-CN`, `zh-SG` and `zh-Hans` simplified, `zh-TW` and `zh-HK` traditional as there,
`zh-Hant` traditional. With `auto` it stays as the model wrote it. Names in text that is traditional
already stay (范).

**Nobody's segments** have the label `Speaker_0`, too: `flags` has `non_speech` for music and noise,
and `speaker_unknown` for speech that was not told apart, such as all of it without diarization.

**Overlap** (`overlap` in `flags`): another person speaks in the same channel while this segment
lasts, half a second or more; its words are less certain. From `moonshine`, `whisper` and
`transformers`. A second person who speaks for a second or longer under another has an own segment.

**No speech** (`no_speech_probability`): from `moonshine` and `transformers` the diarizer's
probability that nobody speaks, mean over the utterance
([figures](performance.md#the-embedded-engine)); from Whisper the model's, of the window.

**Of a segment**: {_answer_fields(TranscribeSegment)}. Times are seconds from the start.

**Of `metadata`**: {_answer_fields(TranscribeMetadata)}. Before `recognized_s` no word of a live
session is missing.
"""


def _answer_fields(model: type[BaseModel]) -> str:
    """Return the names of a model's fields; what they are is in its schema."""
    return ", ".join(f"`{name}`" for name in model.model_fields)


def _field_line(name: str, schema: Mapping[str, Any]) -> str:
    """Return a field with its values, its default and what it is; '' for an alias."""
    said = re.split(r"[.,:;] ", schema["description"])[0].rstrip(".")
    if said.startswith("The same as"):
        return ""
    values = "|".join(map(str, schema.get("enum", ()))) or str(schema["type"])
    if "maximum" in schema:
        values = f"{schema['minimum']}–{schema['maximum']}"
    default = f", default {json.dumps(schema['default'])}" if "default" in schema else ""
    return f"- `{name}` ({values}{default}): {said}\n"


def architecture_page() -> str:
    """The architecture as it is written, with a line for each package, from the highest tier."""
    config = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    contracts = config["tool"]["importlinter"]["contracts"]
    tiers = next(one["layers"] for one in contracts if one["type"] == "layers")
    names = [name for tier in tiers for name in tier.split(" : ")]
    rows = [_package_row(name) for name in names if (ROOT / name.replace(".", "/")).is_dir()]
    return _with_table("architecture.md", "packages", ("package", "what it is"), rows)


def operations_page() -> str:
    """The page of operations as it is written, with the codes of each fault."""
    codes = {
        fault: [f"`{one.code}`" for one in errors.all_errors() if one.fault is fault]
        for fault in errors.Fault
    }
    codes[errors.Fault.UNKNOWN] = ["all others"]
    rows = [(fault.value, ", ".join(named)) for fault, named in codes.items()]
    return _with_table("operations.md", "faults", ("fault", "errors"), rows)


def _with_table(
    page: str, name: str, head: tuple[str, str], rows: Iterable[tuple[str, str]]
) -> str:
    """Return a page as it is written, with a table between its two comments."""
    begin, end = f"<!-- {name}: by docs/generate.py -->\n", f"<!-- end of the {name} -->\n"
    before, _, rest = (HERE / page).read_text("utf-8").partition(begin)
    return f"{before}{begin}{_table(head, rows)}{end}{rest.partition(end)[2]}"


def _package_row(name: str) -> tuple[str, str]:
    """Return a package's folder, and the first line of its docstring."""
    path = ROOT / name.replace(".", "/")
    docstring = ast.get_docstring(ast.parse((path / "__init__.py").read_text("utf-8"))) or ""
    return f"`{path.relative_to(ROOT / 'sidecar').as_posix()}/`", docstring.partition("\n")[0]


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(
        f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines
    )


def main(words: Sequence[str]) -> int:
    """Write the pages, or with ``--check`` say which are not up to date; the exit code."""
    stale = False
    pages = {
        "settings.md": settings_page(),
        "errors.md": errors_page(),
        "http-api.md": http_api_page(),
        "models.md": models_page(MARK, _table),
        "models.svg": models_plot(),
        "architecture.md": architecture_page(),
        "operations.md": operations_page(),
        "live.asyncapi.json": asyncapi(),
        **{name: limits_page(name, _table) for name in PAGES},
        CLIENT_CODES: client_codes(),
        **client_files(),
        ENV_EXAMPLE: env_example(),
    }
    for name, text in pages.items():
        page = HERE / name
        if "--check" not in words:
            page.write_text(text, encoding="utf-8", newline="\n")
        elif not page.exists() or page.read_text(encoding="utf-8") != text:
            print(
                f"{page.resolve()} is not up to date: python docs/generate.py",
                file=sys.stderr,
            )
            stale = True
    return int(stale)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
