"""Commands `open` and `demo`: the page in the browser, a sample through a service of its own."""

import asyncio
import html
from collections.abc import Mapping
from pathlib import Path

from sidecar import errors, files
from sidecar.audio.sample_recording import find_sample
from sidecar.cli import transcribe
from sidecar.cli.backends import (
    ServiceTarget,
    client_of,
    settings_for_person,
    start_child_service,
    waited_for,
)
from sidecar.cli.common_options import argument, option, setting_option
from sidecar.cli.output import is_device, print_error_line, print_text, write_atomically
from sidecar.cli.request_flags import RequestFlags
from sidecar.observability.logs import default_data_folder
from sidecar.plugins import load_settings


async def open_page(
    *,
    target: ServiceTarget,
    show: bool = option(
        False, "Print the link of a running service instead of opening the browser.", "--print"
    ),
    invite: bool = option(
        False,
        "Print a link for somebody else: it opens the page once, within a day, signed in by the "
        "token that you send.",
    ),
    engine: str | None = setting_option("engine"),
    language: str | None = setting_option("language"),
    port: str | None = setting_option("port"),
) -> int:
    """Open the page of the service in the browser.

    On the page you drop recordings, and read and search transcripts. If no service runs on this
    machine, the command starts one, which serves as long as the command runs, and keeps transcripts
    for a day (VIBEVOICE_JOB_RETENTION). --engine and --language are for this one.

    If the service requires a token, the page gets the one of this user, by a link that works once.
    The token itself is not in the link. The browser gets the link by a file that only this user may
    read.

    Examples:

    * `vibevoice-asr open`
    * `vibevoice-asr open --engine whisper`
    * `vibevoice-asr open --server http://127.0.0.1:9000`
    * `vibevoice-asr open --invite --server https://box.lan:8765 --token @anna.token`
    """
    if invite:
        return await _invite(target.or_ours())
    flags = {"engine": engine, "language": language, "port": port}
    given = {name: value for name, value in flags.items() if value is not None}
    if port == "0" and target.server is None and not show:  # at a free port nothing runs yet
        return await _open_with_own_service(target, given)
    there = target.or_ours(**given)
    try:
        link = await _page_link(there)
    except errors.ServiceUnreachable as error:
        if target.server is not None and error.hint == error.default_hint:
            error.hint = "Start one there, or omit --server: then the command starts one."
        if target.server is not None or show:  # a printed link needs a service that stays
            raise
        return await _open_with_own_service(target, given)
    if engine or language:
        raise errors.SettingsInvalid(
            f"The service at {there.server} runs already, with its own engine and language.",
            hint="Stop it first, or omit --engine and --language.",
        )
    _show(link, show=show)
    return 0


async def _open_with_own_service(target: ServiceTarget, given: Mapping[str, str]) -> int:
    print_error_line("No service runs here; starting one.")
    with start_child_service(settings_for_person(given)) as (service, ready):
        if ready is None:  # it has printed the reason
            return service.wait()
        there = target.answering(ready)
        _show(await _page_link(there), show=False)
        print_error_line(f"Serving at {there.server} until Ctrl-C.")
        return await asyncio.to_thread(service.wait)


async def _invite(target: ServiceTarget) -> int:
    target = target.with_token()
    if not target.token:
        raise errors.TokenMissing(
            "An invitation signs somebody in, and there is no token to send.",
            hint="--token @FILE, or VIBEVOICE_CLIENT_TOKEN, has the token of that person.",
        )
    async with client_of(target) as client:
        link = await client.page_link(invitation=True)
        whom = f" as {name}" if (name := link.get("signed_in_as")) else ""
        hours = link["expires_in"] / 3600
        print_error_line(f"Whoever opens this link first is signed in{whom}, within {hours:.0f} h:")
        print_text(f"{client.url}{link['path']}\n")
    return 0


async def _page_link(target: ServiceTarget) -> str:
    target = target.with_token()
    async with client_of(target) as client:
        return f"{client.url}{await client.page_path() if target.token else '/'}"


def _show(link: str, *, show: bool) -> None:
    import webbrowser

    if show:
        print_text(f"{link}\n")
        return
    has_code = "#" in link
    address = _handover(link) if has_code else link
    if not webbrowser.open(address):
        once = ", once, within two minutes" if has_code else ""
        print_error_line(f"There is no browser here; this link opens the page{once}:")
        print_text(f"{link}\n")
    elif has_code:
        print_error_line(
            f"The browser opens {address}, which leads to the page. If it may not read that file, "
            "open the link of 'vibevoice-asr open --print'."
        )


def _handover(link: str) -> str:
    """Return the address of a file that only this user may read, and that leads to ``link``.

    Other users of the machine can read command lines, the browser's included: with the code in one
    they would get the token first. The next link replaces the file; its code works once.

    Raises:
        errors.SettingsInvalid: the file cannot be written.
    """
    folder = default_data_folder(load_settings().data_dir)
    if folder is None:
        raise errors.SettingsInvalid(
            "There is no folder for a file with the link, as the user has no home folder.",
            hint="Set VIBEVOICE_DATA_DIR, or open the link of 'vibevoice-asr open --print'.",
        )
    file = folder.absolute() / "open.html"
    files.make_folder(file.parent)
    files.write(file, HANDOVER.format(link=html.escape(link)).encode())
    return file.as_uri()


HANDOVER = """<!doctype html>
<meta charset="utf-8">
<meta name="referrer" content="no-referrer">
<meta http-equiv="refresh" content="0; url={link}">
<title>vibevoice-asr</title>
<p><a href="{link}">Open the page</a></p>
"""
"""Page that leads to a link. It needs no script."""


def demo(
    audio: Path | None = argument(
        None, "A recording. Default: the included sample.", metavar="FILE"
    ),
    language: str | None = setting_option("language"),
    port: str | None = setting_option("port"),
    save: Path | None = option(
        None, "Only write the included sample to this file.", "--save", metavar="FILE"
    ),
) -> int:
    """Start the service, transcribe a recording through it, and keep serving.

    Without FILE, the included sample is transcribed: two speakers, 28 seconds of English. With
    --save no service is started.

    Examples:

    * `vibevoice-asr demo`
    * `vibevoice-asr demo --save talk.wav`
    * `vibevoice-asr demo meeting.m4a`
    * `vibevoice-asr demo besprechung.m4a --language de`
    """
    if save is not None:
        return _save_sample(save)
    flags = {"language": language, "port": port}
    given = settings_for_person({name: value for name, value in flags.items() if value})
    is_sample, audio = audio is None, audio or sample()
    print_error_line("Starting the service.")  # the first start compiles: seconds without output
    with start_child_service(given) as (service, ready):
        if ready is None:  # it has printed the reason
            return service.wait()
        there = ServiceTarget().answering(ready)
        print_error_line(f"The service runs at {there.server}. Sending it {audio.name}:")
        spoken = "en" if is_sample and language else None  # the default is for other recordings
        code = transcribe.run(
            transcribe.TranscribeCommandOptions(
                [audio], target=there, request=RequestFlags(language=spoken)
            )
        )
        if code or ready.get("reused"):
            return code
        curl = f"curl -F audio=@recording.m4a {there.server}/transcribe"
        print_error_line(f"Still serving. Open {there.server} in a browser, or: {curl}")
        print_error_line("Ctrl-C stops it.")
        return waited_for(service.wait)


def sample() -> Path:
    """Return the recording that is installed with the embedded engine.

    Raises:
        errors.AudioPathNotFound: it is missing.
    """
    if (path := find_sample()) is None:
        raise errors.AudioPathNotFound(
            "The sample recording is missing.", hint="Name a recording: vibevoice-asr demo FILE"
        )
    return path


def _save_sample(target: Path) -> int:
    """Write the sample to a file that is not there yet, or has it already; print its path.

    Raises:
        errors.AudioPathNotFound: the sample is missing.
    """
    sound = sample().read_bytes()
    try:
        if is_device(target):
            write_atomically(target, sound)
        elif not (target.exists() and target.read_bytes() == sound):
            with target.open("xb") as file:
                file.write(sound)
    except FileExistsError:
        print_error_line(f"{target} is there already, and is not the sample. Name another file.")
        return 1
    except OSError as error:
        print_error_line(f"{target}: cannot be written: {error.strerror}.")
        return 1
    print_text(f"{target}\n")
    return 0
