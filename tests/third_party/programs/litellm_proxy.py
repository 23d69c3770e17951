"""LiteLLM's proxy, asked by OpenAI's package: `litellm_proxy.py PORT RECORDING`."""

import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from common import tell
from openai import OpenAI

KEY = f"sk-{secrets.token_hex(32)}"


def main(port: str, recording: str) -> None:
    models = [
        {
            "model_name": name,
            "litellm_params": {
                "model": f"openai/{name}",
                "api_base": f"http://127.0.0.1:{port}/v1",
                "api_key": "none",
            },
            "model_info": {"mode": mode},
        }
        for name, mode in (("whisper-1", "audio_transcription"), ("tts-1", "audio_speech"))
    ]
    with socket.create_server(("127.0.0.1", 0)) as free:
        at = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as home:
        config = Path(home) / "config.yaml"
        config.write_text(json.dumps({"model_list": models}), "utf-8")  # JSON is YAML
        command = Path(sys.executable).parent / "litellm"
        proxy = subprocess.Popen(
            [command, "--config", config, "--host", "127.0.0.1", "--port", str(at)],
            cwd=home,
            env={**os.environ, "LITELLM_MASTER_KEY": KEY},  # newer ones do not start without
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            wait(f"http://127.0.0.1:{at}/health/liveliness", proxy)
            client = OpenAI(base_url=f"http://127.0.0.1:{at}/v1", api_key=KEY)
            with open(recording, "rb") as file:
                heard = client.audio.transcriptions.create(model="whisper-1", file=file)
            said = client.audio.speech.create(model="tts-1", voice="alloy", input="Good morning.")
            tell({"text": heard.text, "mp3": said.read()[:2].hex()})
        finally:
            proxy.terminate()
            proxy.wait()


def wait(url: str, proxy: subprocess.Popen[bytes]) -> None:
    for _ in range(2_000):
        assert proxy.poll() is None, "the proxy has ended"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError("the proxy does not answer")


main(*sys.argv[1:])
