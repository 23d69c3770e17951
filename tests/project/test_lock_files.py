"""The lock files of images and executables: they meet pyproject.toml, and name a hash for each."""

import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from not_tested import missing
from service_process import told_by

requirements = pytest.importorskip("packaging.requirements", reason="pytest brings it")

ROOT = Path(__file__).parents[2]
LOCKS = ROOT / "packaging/locks"
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
IMAGE_EXTRAS = ("auth", "grpc", "postgres", "s3")
EXTRAS = {
    "image": IMAGE_EXTRAS,
    "image-cuda": (*IMAGE_EXTRAS, "vibevoice"),
    "executable": ("build",),
}
SYSTEMS = {
    "image": ("linux",),
    "image-cuda": ("linux",),
    "executable": ("linux", "darwin", "win32"),
}
PYTHON = {"python_version": "3.11", "python_full_version": "3.11.9"}
"""Of the images and of the releases."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def required(extras: tuple[str, ...]) -> Iterator[requirements.Requirement]:
    """What pyproject.toml asks for: the base and extras, with those that they name in turn."""
    project = PYPROJECT["project"]
    texts = list(project["dependencies"])
    for extra in extras:
        texts += project["optional-dependencies"][extra]
    for one in map(requirements.Requirement, texts):
        if canonical(one.name) == project["name"]:
            yield from required(tuple(one.extras))
        else:
            yield one


def locked(name: str) -> dict[str, list[tuple[requirements.Requirement, int]]]:
    """The pins of a lock file by name, each with how many hashes it has."""
    text = (LOCKS / f"{name}.txt").read_text("utf-8").replace("\\\n", " ")
    pins: dict[str, list[tuple[requirements.Requirement, int]]] = {}
    for line in text.splitlines():
        pin, *hashes = re.split(r"\s+--hash=sha256:(?=[0-9a-f]{64}(?:\s|$))", line)
        one = requirements.Requirement(pin)
        pins.setdefault(canonical(one.name), []).append((one, len(hashes)))
    return pins


def version_for(pins: list[tuple[requirements.Requirement, int]], system: str) -> str | None:
    """The version that a system gets, of those that are pinned for one system or another."""
    here = {**PYTHON, "sys_platform": system, "extra": ""}
    found = [one for one, _ in pins if one.marker is None or one.marker.evaluate(here)]
    return str(found[0].specifier).removeprefix("==") if found else None


@pytest.mark.parametrize("name", EXTRAS)
def test_lock_has_version_in_range_of_each_requirement(name: str) -> None:
    pins = locked(name)
    build_system = map(requirements.Requirement, PYPROJECT["build-system"]["requires"])
    for one in (*required(EXTRAS[name]), *build_system):
        for system in SYSTEMS[name]:
            if one.marker is not None and not one.marker.evaluate({"sys_platform": system}):
                continue
            version = version_for(pins.get(canonical(one.name), []), system)
            assert version is not None, f"{one.name} is not locked for {system}: make locks"
            assert version in one.specifier, f"{one}, locked at {version}: make locks"


@pytest.mark.parametrize("name", EXTRAS)
def test_pins_are_exact_with_hash_and_without_registry(name: str) -> None:
    for pins in locked(name).values():
        for one, hashes in pins:
            assert re.fullmatch(r"==[\w.!+-]+", str(one.specifier)), one
            assert one.url is None
            assert hashes, f"{one.name} has no hash"
    text = (LOCKS / f"{name}.txt").read_text("utf-8")
    assert not re.search(r"://|(?m:^\s*--(?!hash=))|@ ", text)


@pytest.mark.parametrize("name", ["image-cuda", "executable"])
def test_packages_in_several_locks_have_same_version(name: str) -> None:
    base, other = locked("image"), locked(name)
    common = base.keys() & other.keys()
    assert {"fastapi", "numpy", "onnxruntime"} <= common
    for one in common:
        versions = {version_for(base[one], "linux"), version_for(other[one], "linux")} - {None}
        assert len(versions) < 2, one


def test_make_locks_has_extras_of_tested_locks() -> None:
    text = (ROOT / "Makefile").read_text("utf-8").replace("\\\n", " ")
    lines = re.findall(r"\$\(LOCK\) (.+)", text)
    made = {
        re.findall(r"-o packaging/locks/(\S+)\.txt", line)[0]: tuple(
            re.findall(r"--extra (\S+)", line)
        )
        for line in lines
    }
    assert made == EXTRAS


@pytest.mark.skipif(shutil.which("make") is None, reason=missing("make", "make"))
@pytest.mark.parametrize("command", ["audit", "locks"])
def test_make_audit_and_locks_ask_for_wheels_of_the_executable_for_windows_and_macos(
    command: str,
) -> None:
    steps = told_by(["make", "-n", command], cwd=ROOT).stdout
    assert "for system in x86_64-pc-windows-msvc aarch64-apple-darwin" in steps
    assert "--only-binary :all: --require-hashes" in steps
    assert "packaging/locks/executable.txt --python-platform" in steps


def test_torch_is_locked_for_cuda_image_only() -> None:
    assert [name for name in EXTRAS if "torch" in locked(name)] == ["image-cuda"]
