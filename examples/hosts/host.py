import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by a proxy


class SpeechError(Exception):
    """Why there is no result. Decide by `code`; the text is for developers, not for users."""

    def __init__(self, problem: dict) -> None:
        super().__init__(f"{problem['detail']} {problem['hint']} ({problem['code']})")
        self.code = problem["code"]


class Sidecar:
    """The service as a child process."""

    def __init__(self, command: list[str], limit_s: float = 60.0) -> None:
        self.process = subprocess.Popen(
            [*command, "--port", "0", "--generate-token", "--exit-with-stdin"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,  # standard error is ours: the log appears in our own
        )
        too_long = threading.Timer(limit_s, self.process.kill)
        too_long.start()
        line = self.process.stdout.readline()
        too_long.cancel()
        self.ready = json.loads(line or '{"event": "fatal", "code": "no_line", "message": "?"}')
        if self.ready["event"] == "fatal":
            code = self.process.wait()
            raise SystemExit(f"{self.ready['message']} ({self.ready['code']}, exit code {code})")
        assert self.ready["contract"] == 1

    def call(self, method: str, path: str, body: object = None, **headers: str) -> dict:
        """One request; an error of the service raises SpeechError."""
        request = urllib.request.Request(
            self.ready["url"] + path,
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self.ready['token']}",
                "Content-Type": "application/json",
                **headers,
            },
        )
        try:
            with LOCAL.open(request, timeout=60) as response:
                return self.read(response)
        except urllib.error.HTTPError as error:
            raise SpeechError(self.read(error, "detail", "hint", "code")) from None

    def read(self, response, *fields: str) -> dict:
        """The JSON of an answer, with these fields; that of a proxy in between has none."""
        try:
            answer = json.load(response)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and answer.keys() >= set(fields):
            return answer
        what = f"{response.status}, {response.headers.get('Content-Type')}"
        detail = f"The answer is not the service's ({what})."
        hint = "Is a proxy between? Its log says more."
        raise SpeechError({"detail": detail, "hint": hint, "code": "no_json"})

    def transcribe(
        self,
        path: str,
        on_progress=lambda fraction: None,
        cancelled=lambda: False,
        **options: object,
    ) -> dict:
        """Transcribe a file of this machine. `options`: language="en", diarize=False …"""
        body = {"audio_path": str(Path(path).resolve()), **options}  # it takes no relative path
        job = self.call("POST", "/transcribe", body, Prefer="respond-async")
        while job["state"] in ("queued", "running"):
            on_progress(job["progress"]["fraction"])
            time.sleep(0.1)
            if cancelled():
                job = self.call("DELETE", f"/v1/jobs/{job['id']}?keep=true")
            else:
                job = self.call("GET", f"/v1/jobs/{job['id']}")
        return self.call("GET", f"/v1/jobs/{job['id']}/transcript")  # else why there is none

    def stop(self) -> int:
        """Let it end; its exit code."""
        self.process.stdin.close()
        return self.process.wait(timeout=20)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python host.py RECORDING COMMAND…, such as vibevoice-asr")
    enter = threading.Event()
    threading.Thread(target=lambda: os.read(0, 1) and enter.set(), daemon=True).start()
    sidecar = Sidecar(sys.argv[2:])
    try:
        result = sidecar.transcribe(
            sys.argv[1], lambda fraction: print("progress", fraction), cancelled=enter.is_set
        )
    except SpeechError as error:
        sidecar.stop()
        sys.exit(str(error))
    for segment in result["segments"]:
        print(f"{segment['start_time']:8.2f} {segment['speaker']}: {segment['text']}")
    print("exit code", sidecar.stop())
