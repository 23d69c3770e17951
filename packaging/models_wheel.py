"""A wheel of the embedded engine's models: `python packaging/models_wheel.py OUT`.

Releases of moonshine-voice after the pinned one have no models inside, and a release may be
withdrawn. This wheel has the weights of Moonshine tiny-en, two recordings, and the models that the
library has inside, in the folder where moonshine-voice has them: the engine finds both in the same
way. Each file is compared with its SHA-256 before it goes in.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from flavours import write_models_file

from sidecar.checkpoints import onnx_models

ROOT = Path(__file__).resolve().parents[1]
PACKAGE, DISTRIBUTION = "moonshine_voice", "moonshine-voice"
DIGESTS = {
    "assets/tiny-en/decoder_model_merged.ort": (
        "cf524c4862d36e9e5ab032eddc73637efd822d70e868ac575cf1a46e1e4708a0"
    ),
    "assets/tiny-en/encoder_model.ort": (
        "94e90a4654fc45cdfedb77c4c08e1739f48862998e58fada384b25118134f221"
    ),
    "assets/tiny-en/tokenizer.bin": (
        "6884b35fd6377d4c4d32336a0bc152f36b64d1e45b6503683cdc238250a8472d"
    ),
    "assets/beckett.wav": "e5a26b3d29e5b0bc8dbd72c11d16a3808a4ec0ac45b21f12a27d2a2fe5c5ae61",
    "assets/endgame_nagg_nell.wav": (
        "78f44dc6d3da32ecab0c37f391700f0569f4612b8e0be2ecbaf33e1d3d566474"
    ),
}
"""SHA-256 of each file of moonshine-voice 0.0.73 that goes in as it is."""
PROJECT = """
[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "vibevoice-asr-embedded-models"
version = "{version}"
description = "Models of the embedded engine of vibevoice-asr, of moonshine-voice {version}"
license = "MIT AND CC-BY-4.0"
license-files = ["LICENSE", "THIRD_PARTY_LICENSES.md"]

[tool.setuptools]
packages = ["{package}"]

[tool.setuptools.package-data]
{package} = ["assets/**", "*{suffix}"]
"""


def main() -> None:
    """Write the wheel into the folder OUT."""
    print(write_wheel(Path(sys.argv[1]).resolve()))


def write_wheel(out: Path) -> Path:
    """Write the wheel into a folder, and return its path.

    Raises:
        SystemExit: moonshine-voice is not installed, or has other models.
    """
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        raise SystemExit(f"{DISTRIBUTION} is not installed") from None
    with tempfile.TemporaryDirectory(prefix="vibevoice-models-") as name:
        source = Path(name)
        for file, digest in DIGESTS.items():
            content = Path(str(distribution.locate_file(f"{PACKAGE}/{file}"))).read_bytes()
            if hashlib.sha256(content).hexdigest() != digest:
                raise SystemExit(f"{file} of {DISTRIBUTION} {distribution.version} is another one")
            (source / PACKAGE / file).parent.mkdir(parents=True, exist_ok=True)
            (source / PACKAGE / file).write_bytes(content)
        try:
            write_models_file(source / PACKAGE)
        except KeyError as lacking:
            raise SystemExit(
                f"{DISTRIBUTION} {distribution.version} lacks a model: {lacking}"
            ) from None
        licence = next(one for one in distribution.files or () if one.name == "LICENSE")
        shutil.copy(str(licence.locate()), source / "LICENSE")
        shutil.copy(ROOT / "THIRD_PARTY_LICENSES.md", source)
        text = PROJECT.format(
            version=distribution.version, package=PACKAGE, suffix=onnx_models.MODELS_SUFFIX
        )
        (source / "pyproject.toml").write_text(text, "utf-8")
        offline = ("--no-deps", "--no-index", "--no-build-isolation")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", *offline]
        subprocess.run([*pip, "--wheel-dir", str(out), str(source)], check=True)
    return max(out.glob("vibevoice_asr_embedded_models-*.whl"), key=lambda one: one.stat().st_mtime)


if __name__ == "__main__":
    main()
