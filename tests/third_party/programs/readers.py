"""Readers of frameworks, each by its name: `readers.py NAME PORT RECORDING`."""

import os
import sys
from pathlib import Path

from common import tell


def langchain(recording: Path) -> str:
    """It cuts recordings, and sends the parts as MP3."""
    import imageio_ffmpeg
    from langchain_community.document_loaders.parsers.audio import OpenAIWhisperParser
    from langchain_core.documents.base import Blob
    from pydub import AudioSegment

    AudioSegment.converter = imageio_ffmpeg.get_ffmpeg_exe()
    parser = OpenAIWhisperParser(base_url=os.environ["OPENAI_BASE_URL"])
    return " ".join(one.page_content for one in parser.parse(Blob.from_path(recording)))


def llama_index(recording: Path) -> str:
    from llama_index.readers.whisper import WhisperReader

    return " ".join(one.text for one in WhisperReader().load_data(recording))


def haystack(recording: Path) -> str:
    from haystack_integrations.components.audio.whisper import RemoteWhisperTranscriber

    transcriber = RemoteWhisperTranscriber(api_base_url=os.environ["OPENAI_BASE_URL"])
    return " ".join(one.content for one in transcriber.run(sources=[recording])["documents"])


def speech_recognition(recording: Path) -> str:
    import speech_recognition as recognition

    audio = recognition.AudioData.from_file(str(recording))
    return recognition.Recognizer().recognize_openai(audio)


def main(name: str, port: str, recording: str) -> None:
    os.environ["OPENAI_BASE_URL"] = f"http://127.0.0.1:{port}/v1"
    reader = {one.__name__: one for one in (langchain, llama_index, haystack, speech_recognition)}
    tell(reader[name](Path(recording)).strip())


main(*sys.argv[1:])
