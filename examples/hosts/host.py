import json
import subprocess
import sys
import threading
import time
import urllib.request

LOCAL = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never by a proxy


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
        """One request; an error of the service raises urllib.error.HTTPError."""
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
        with LOCAL.open(request, timeout=60) as response:
            return json.load(response)

    def transcribe(self, path: str, on_progress=lambda fraction: None) -> dict:
        """Transcribe a file of this machine (an absolute path)."""
        job = self.call("POST", "/transcribe", {"audio_path": path}, Prefer="respond-async")
        while job["state"] in ("queued", "running"):
            on_progress(job["progress"]["fraction"])
            time.sleep(0.1)
            job = self.call("GET", f"/jobs/{job['id']}")
        if job["state"] != "done":
            raise RuntimeError(job.get("error", job["state"]))
        return job["result"]

    def stop(self) -> int:
        """Let it end; its exit code."""
        self.process.stdin.close()
        return self.process.wait(timeout=20)


if __name__ == "__main__":
    sidecar = Sidecar(sys.argv[2:])
    result = sidecar.transcribe(sys.argv[1], lambda fraction: print("progress", fraction))
    for segment in result["segments"]:
        print(f"{segment['start_time']:8.2f} {segment['speaker']}: {segment['text']}")
    print("exit code", sidecar.stop())
