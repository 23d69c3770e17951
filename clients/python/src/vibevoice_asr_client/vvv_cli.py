"""`vvv`: the words of the original queue's command line.

`vvv --server URL --token T [--insecure | --ca-cert FILE] transcribe FILE [--hotwords "A,B"]
[--output FILE]`, and `… status`. Text goes to stdout as it comes, all else to stderr.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import io
import os
import secrets
import ssl
import sys
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Sequence, Tuple, Union

import httpx

from vibevoice_asr_client.vvv import EventType, TranscriptionEvent, VibevoiceClient

TOKEN = "VVV_TOKEN"  # noqa: S105 - the name of the variable that has it
INTERRUPTED = 130
STDOUT = frozenset({"/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"})
DESCRIPTORS = ("/dev/fd/", "/dev/stderr", "/proc/")
"""Where paths are those of open files: another file in the place of one would be nobody's."""


def main() -> None:
    """Run what the command line says, and exit."""
    if sys.stdout is None:  # closed: the text would be lost without a sign
        sys.exit(_fail("Error: standard output is closed."))
    if isinstance(sys.stdout, io.TextIOWrapper):  # whatever the encoding of the console
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.exit(run(sys.argv[1:]))


def run(words: Sequence[str]) -> int:
    """Run one command line; the exit code. Words that are not understood exit with 2."""
    args = _parser().parse_args(words)
    if args.insecure and args.ca_cert:
        return _fail("Error: --insecure and --ca-cert cannot both hold.")
    if not args.token:
        return _fail(f"Error: give --token, or set {TOKEN}.")
    if args.command == "transcribe" and not os.path.isfile(args.file):
        return _fail(f"Error: there is no file {args.file}.")
    if args.insecure:
        _say("Warning: --insecure: any certificate is accepted; the recording goes to any server.")
    verify: Union[bool, str] = args.ca_cert or not args.insecure
    try:
        client = VibevoiceClient(args.server, args.token, verify)
        if args.command == "status":
            code = asyncio.run(_status(client))
        else:
            code = asyncio.run(_transcribe(client, args.file, args.hotwords, args.output))
        sys.stdout.flush()
        return code
    except httpx.HTTPStatusError as error:
        return _fail(f"Error: HTTP {error.response.status_code} from {args.server}.")
    except (httpx.TransportError, httpx.InvalidURL) as error:
        return _fail(f"Error: {args.server}: {error or type(error).__name__}.")
    except UnicodeEncodeError:
        return _fail("Error: the token or the hotwords have characters that cannot be sent.")
    except ssl.SSLError:
        return _fail(f"Error: {args.ca_cert} holds no certificates.")
    except OSError as error:
        about = error.filename or args.ca_cert or "standard output"
        _leave_stdout()
        # Its reader is gone; Windows calls that an invalid argument.
        invalid = os.name == "nt" and error.errno == errno.EINVAL and not error.filename
        if invalid or error.errno == errno.EPIPE:
            return 1
        return _fail(f"Error: {about}: {error.strerror}.")
    except KeyboardInterrupt:
        return INTERRUPTED


def _leave_stdout() -> None:
    """What is left to flush must not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


async def _transcribe(
    client: VibevoiceClient, file: str, hotwords: Optional[str], output: Optional[str]
) -> int:
    wrong: Optional[str] = "The service broke off."
    text = ""
    with _opened(output, file) as (add, keep):
        try:
            async for event in client.transcribe(file, hotwords):
                if event.event_type is EventType.QUEUE:
                    _say(_queue_line(event))
                elif event.event_type is EventType.DATA:
                    text += event.text or ""
                    add(event.text or "")
                    sys.stdout.write(event.text or "")
                    sys.stdout.flush()
                elif event.event_type is EventType.ERROR:
                    wrong = event.error
                    break
                else:
                    wrong, text = None, text if event.revised is None else event.revised
        finally:  # also of a connection that breaks, and of Ctrl-C
            keep(text, wrong is None)
    if wrong is not None:
        return _fail(f"\n[Error] {wrong}")
    print()
    return 0


async def _status(client: VibevoiceClient) -> int:
    status = await client.queue_status()
    print(f"Total queued: {status.get('total_queued', 0)}")
    for job in status.get("your_jobs", []):
        print(_job_line(job))
    if not status.get("your_jobs"):
        print("No active jobs.")
    return 0


def _queue_line(event: TranscriptionEvent) -> str:
    wait = event.estimated_wait_seconds
    return (
        f"[Queue] Position: {event.position}, ETA: {'unknown' if wait is None else f'{wait:.0f}s'}"
    )


def _job_line(job: Any) -> str:
    line = f"  {job['job_id'][:8]}... status={job['status']}"
    if job.get("position") is not None:
        line += f" position={job['position']}"
    if job.get("estimated_wait_seconds") is not None:
        line += f" eta={job['estimated_wait_seconds']:.0f}s"
    return line


@contextlib.contextmanager
def _opened(
    output: Optional[str], recording: str
) -> Iterator[Tuple[Callable[[str], None], Callable[[str, bool], None]]]:
    """Open the file for a transcript: one beside ``output``, unless that cannot be replaced. Give
    what adds a piece of the text to the former, for the case that this process is killed, and what
    writes all of it, and whether it is whole: a part of a transcript replaces nothing."""
    if output is None or output in STDOUT:  # where it is printed
        yield lambda piece: None, lambda text, whole: None
        return
    path = os.path.realpath(output)  # a link stays one
    if path == os.path.realpath(recording):
        raise OSError(errno.EEXIST, "it is the recording", output)
    there = os.path.exists(output)
    is_open = output.startswith(DESCRIPTORS)
    replaces = not there or (os.path.isfile(output) and not is_open)
    half = os.path.join(os.path.dirname(path), f".{secrets.token_hex(4)}.part")
    mode = "a" if is_open else "w"  # a console of Windows cannot be appended to
    try:
        with open(half if replaces else output, mode, encoding="utf-8", newline="\n") as file:

            def add(piece: str) -> None:
                if replaces:
                    with contextlib.suppress(OSError):  # a full disk: `keep` reports it
                        file.write(piece)
                        file.flush()

            def keep(text: str, whole: bool) -> None:
                if replaces:
                    file.seek(0)
                    file.truncate()
                file.write(text)
                file.close()
                if replaces and (whole or (text and not os.path.exists(output))):
                    os.replace(half, path)

            yield add, keep
    except OSError as error:
        if error.filename == half:
            error.filename = output  # not a name that nobody gave
        raise
    finally:
        if replaces:
            Path(half).unlink(missing_ok=True)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _fail(line: str) -> int:
    _say(line)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vvv", description="Transcribe recordings by a queue's service, as its own client did."
    )
    parser.add_argument("--server", required=True, metavar="URL", help="address of the service")
    parser.add_argument(
        "--token",
        default=os.environ.get(TOKEN),
        metavar="T",
        help=f"token of the client (or {TOKEN})",
    )
    parser.add_argument("--insecure", action="store_true", help="believe any certificate")
    parser.add_argument("--ca-cert", metavar="FILE", help="certificates to believe, PEM")
    words = parser.add_subparsers(dest="command", required=True)
    transcribe = words.add_parser("transcribe", help="upload a recording, print its transcript")
    transcribe.add_argument("file", metavar="FILE")
    transcribe.add_argument("--hotwords", metavar='"A,B"', help="names and words to expect")
    transcribe.add_argument("--output", metavar="FILE", help="write the transcript there, too")
    words.add_parser("status", help="your jobs, and how many wait")
    return parser


if __name__ == "__main__":
    main()
