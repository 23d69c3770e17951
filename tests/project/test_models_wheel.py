"""The wheel of the embedded engine's models (`make models`), without moonshine-voice."""

import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest
from not_tested import missing
from service_process import told_by

from sidecar.cli.open import sample

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "packaging"))

import models_wheel  # noqa: E402


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An interpreter that has the libraries of this one but moonshine-voice, and the wheel."""
    venv.create(tmp_path / "env", with_pip=False)
    base = {"base": str(tmp_path / "env"), "platbase": str(tmp_path / "env")}
    site = Path(sysconfig.get_path("purelib", "venv", base))
    for one in Path(sysconfig.get_path("purelib")).iterdir():
        if not one.name.startswith("moonshine_voice") and one.suffix != ".pth":
            (site / one.name).symlink_to(one)
    (site / "project.pth").write_text(f"{ROOT}\n{ROOT / 'clients/python/src'}\n", "utf-8")
    build = [sys.executable, str(ROOT / "packaging" / "models_wheel.py"), str(tmp_path)]
    subprocess.run(build, check=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    [wheel] = tmp_path.glob("*.whl")
    install = ("install", "-q", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    return tmp_path / "env" / "bin" / "python"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="the libraries of the tests are linked, not copied")
def test_models_wheel_in_place_of_moonshine_voice_gives_the_same_transcript(
    python: Path,
) -> None:
    asked = ["-m", "sidecar.main", "transcribe", str(sample()), "--format", "text"]
    with_wheel, usual = (told_by([str(one), *asked], cwd=ROOT) for one in (python, sys.executable))
    assert (with_wheel.returncode, usual.returncode) == (0, 0), with_wheel.stderr
    assert with_wheel.stdout == usual.stdout
    assert "Speaker_1" in usual.stdout
    where = "import moonshine_voice; print(moonshine_voice.__path__[0])"
    found = told_by([str(python), "-c", where], cwd=ROOT)
    assert found.stdout.startswith(str(python.parents[1]))


def test_models_wheel_is_not_written_if_a_file_has_another_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models_wheel.DIGESTS, "assets/beckett.wav", "0" * 64)
    with pytest.raises(SystemExit, match=r"assets/beckett.wav .* is another one"):
        models_wheel.write_wheel(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(shutil.which("make") is None, reason=missing("make", "make"))
def test_make_models_installs_what_builds_the_wheel_before_it_writes_it() -> None:
    """It is built in the environment itself: that of a new clone has the setuptools of Python."""
    steps = told_by(["make", "-n", "models"], cwd=ROOT).stdout
    before, _, _ = steps.rpartition("packaging/models_wheel.py")
    text = models_wheel.PROJECT.format(version="0", package="a", suffix=".b")
    wanted = tomllib.loads(text)["build-system"]["requires"]
    assert [one for one in wanted if f"install -q '{one}'" not in before] == []
