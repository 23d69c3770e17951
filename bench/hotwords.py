"""Recall of hotwords in the embedded engine, and what they cost, each beside the same without them.

Sentences with rare names, said by espeak-ng, each with a list of the names in it and ``--others``
more: how many of the names are in the text. Clips of the folder VIBEVOICE_BENCH_AUDIO
(docs/bench.md) with lists of names that nobody says, the last one of 50 first names, as jobs get
them by default: word errors, and processor time; and the same in noise of 5 dB.

    python -m bench.hotwords [--others 10]
"""

from __future__ import annotations

import itertools
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from bench.metrics import Clip, Piece, Scores, check_references, clips, score
from bench.serving import argument_parser
from sidecar.audio import SAMPLE_RATE, Block
from sidecar.audio.audio_decoder import decode_audio_file
from sidecar.engines.moonshine.moonshine_recognizer import MoonshineRecognizer, model_folder

VOICES = ("en-us", "en-gb", "en-us+f3", "en-gb+m3")
SENTENCES = (
    ("We deployed the new service on Kubernetes last Thursday.", "Kubernetes"),
    ("Siobhan asked whether the report is ready.", "Siobhan"),
    ("The invoice from Wojciechowski arrived this morning.", "Wojciechowski"),
    ("Please send the contract to Mister Okonkwo before noon.", "Okonkwo"),
    ("Doctor Szymanska prescribed amoxicillin for ten days.", "Szymanska, amoxicillin"),
    ("The patient was given metoprolol and lisinopril.", "metoprolol, lisinopril"),
    ("We moved the database from MySQL to PostgreSQL.", "PostgreSQL, MySQL"),
    ("Anneliese and Bjorn will meet us in Reykjavik.", "Anneliese, Bjorn, Reykjavik"),
    ("The Trispr project uses Tauri for its window.", "Trispr, Tauri"),
    ("Our office in Ljubljana opens in September.", "Ljubljana"),
    ("Ask Priyanka about the quarterly numbers.", "Priyanka"),
    ("The river Vltava flows through the city.", "Vltava"),
    ("I spoke with Thibault about the merger.", "Thibault"),
    ("Can you restart the Grafana dashboard for me?", "Grafana"),
    ("Nguyen will present the results of the trial.", "Nguyen"),
    ("The court heard the case of Delacroix against the city.", "Delacroix"),
    ("Xochitl wrote the first chapter of the book.", "Xochitl"),
    ("He studied at the university of Coimbra.", "Coimbra"),
    ("The Vauxhall was parked next to the Skoda.", "Vauxhall, Skoda"),
    ("Configure Nginx as a proxy in front of Gunicorn.", "Nginx, Gunicorn"),
    ("The dose of levothyroxine was increased.", "levothyroxine"),
    ("Mister Papadopoulos sold the house to Fitzwilliam.", "Papadopoulos, Fitzwilliam"),
    ("We visited Llandudno and Aberystwyth in the summer.", "Llandudno, Aberystwyth"),
    ("Eilidh and Niamh are on the board now.", "Eilidh, Niamh"),
    ("The merger of Daimler and Rheinmetall was cancelled.", "Daimler, Rheinmetall"),
    ("Send it to Zbigniew in accounting.", "Zbigniew"),
    ("The Matterhorn is visible from Zermatt.", "Matterhorn, Zermatt"),
    ("Terraform writes the state to a bucket.", "Terraform"),
    ("Professor Bhattacharya teaches algebra.", "Bhattacharya"),
    ("The ship sailed from Valparaiso to Honolulu.", "Valparaiso, Honolulu"),
)
"""Sentences, and the names in them that few texts have."""
FIRST_NAMES = (
    "Ann Will Mark Bill Rose Ian Lee Kim Sue Joe Ray Art Max Pat Nell Nagg Anna John Mary Tom Tim "
    "Ben Dan Sam Amy Eve Ida Ada Ina May June April Dawn Hope Faith Grace Joy Jack Frank Rob Bob "
    "Dick Harry Peter Paul Nick Rick Drew Chase Al"
)
"""As many as a job gets by default; most are short, or words of other meanings, too."""
NOISE_SNR_DB = 5


def main() -> None:
    """Measure both, and print them."""
    parser = argument_parser(__doc__)
    parser.add_argument("--others", type=int, default=10, help="names in the list that nobody says")
    others: int = parser.parse_args().others
    if not shutil.which("espeak-ng"):
        sys.exit("espeak-ng is not installed: sudo apt-get install espeak-ng")
    check_references()
    recognizer = MoonshineRecognizer(model_folder())
    _names(recognizer, others)
    _clips(recognizer, others)


def _names(recognizer: MoonshineRecognizer, others: int) -> None:
    """Print how many of the names are in the text of their sentence, without and with a list."""
    names = [name for _, said in SENTENCES for name in said.split(", ")]
    found = {False: 0, True: 0}
    false = spoken = 0
    took = {False: 0.0, True: 0.0}
    for at, (sentence, said) in enumerate(SENTENCES):
        there = said.split(", ")
        absent = random.Random(at).sample([name for name in names if name not in there], others)
        for voice in (VOICES[at % 4], VOICES[(at + 1) % 4]):
            audio = _spoken(sentence, voice)
            spoken += len(there)
            for helped in found:
                text, seconds = _recognized(recognizer, audio, (*there, *absent) if helped else ())
                found[helped] += sum(name.lower() in text for name in there)
                took[helped] += seconds
                false += helped and sum(name.lower() in text for name in absent)
    print(f"names in the text, of {spoken}: {found[False]} without hotwords, {found[True]} with")
    print(f"names in the text that nobody said: {false}")
    print(f"processor time: {took[True] / took[False]:.2f} times")


def _clips(recognizer: MoonshineRecognizer, others: int) -> None:
    """Print the word errors of recordings without and with lists of names that nobody says."""
    names = tuple(name for _, said in SENTENCES for name in said.split(", "))[:others]
    for noisy, hotwords in itertools.product(
        (False, True), ((), names, tuple(FIRST_NAMES.split()))
    ):
        scores, took = Scores(), 0.0
        for clip in clips():
            audio = decode_audio_file(clip.path, SAMPLE_RATE)
            for start, end, speaker, words in clip.utterances or ():
                part = audio[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
                part = _with_noise(part) if noisy else part
                text, seconds = _recognized(recognizer, part, hotwords)
                took += seconds
                utterance = Clip(clip.name, clip.path, end - start, "en", words, None, None)
                scores += score(utterance, [Piece(0, end - start, speaker, text)])
        kind = "clips in noise" if noisy else "clips"
        print(f"{kind}, {len(hotwords)} hotwords: WER {scores.wer:.2f}, {took:.1f} CPU-s")


def _with_noise(sound: Block) -> Block:
    noise = np.random.default_rng(len(sound)).standard_normal(len(sound))
    noise = np.convolve(noise, np.exp(-np.arange(40) / 8), "same")
    noise *= np.sqrt(np.square(sound).mean() / np.square(noise).mean())
    mixed: Block = (sound + noise * 10 ** (-NOISE_SNR_DB / 20)).astype(np.float32)
    return mixed


def _recognized(
    recognizer: MoonshineRecognizer, audio: Block, hotwords: tuple[str, ...]
) -> tuple[str, float]:
    """Return the text in lower case, and the processor seconds it took."""
    begun = time.process_time()
    found = recognizer.recognize(audio, hotwords=hotwords)
    assert found is not None, "nobody cancels it"
    return found.text.lower(), time.process_time() - begun


def _spoken(sentence: str, voice: str) -> Block:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
        command = ["espeak-ng", "-v", voice, "-s", "150", "-w", str(file), sentence]
        subprocess.run(command, check=True)
        return decode_audio_file(file, SAMPLE_RATE)


if __name__ == "__main__":
    main()
