"""Installed packages that an executable does not need, by the requirements of the project."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
OURSELVES = "vibevoice-asr"
TOOLS = {OURSELVES, "pyinstaller", "pyinstaller-hooks-contrib", "setuptools"}
"""What a build runs on: PyInstaller's hooks import it."""

packages_distributions = cache(metadata.packages_distributions)  # reads the lists of all files


def normal(name: str) -> str:
    """A distribution's name as they compare (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def packages_not_wanted(extras: Iterable[str]) -> list[str]:
    """Packages of what is installed here and neither the base nor ``extras`` require.

    So a build has the same inside, whatever else a developer has installed. Of a namespace, such as
    `opentelemetry`, they are those below it.
    """
    wanted = wanted_distributions(extras) | TOOLS
    unwanted = []
    for module, names in packages_distributions().items():
        needed = {name for name in names if normal(name) in wanted}
        if not module.isidentifier() or needed == {*names}:
            continue
        if not needed:
            unwanted.append(module)
        else:
            kept, others = (_below(module, one) for one in (needed, {*names} - needed))
            unwanted += others - kept
    return sorted(unwanted)


def packages_of(extras: Iterable[str]) -> set[str]:
    """Packages of what ``extras`` require and the base does not."""
    added = wanted_distributions(extras) - wanted_distributions(())
    return {
        module
        for module, names in packages_distributions().items()
        if added & {normal(name) for name in names}
    }


def _below(module: str, distributions: Iterable[str]) -> set[str]:
    """The packages right in a namespace that distributions bring."""
    return {
        f"{module}.{file.parts[1]}"
        for name in distributions
        for file in metadata.files(name) or ()
        if len(file.parts) > 2 and file.parts[0] == module and file.parts[1].isidentifier()
    }


def wanted_distributions(extras: Iterable[str]) -> set[str]:
    """The distributions that the base and ``extras`` require, and what those require in turn.

    A name in ``extras`` that is no extra of ours is that of a distribution.
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    optional: dict[str, list[str]] = project["optional-dependencies"]
    waiting = [*map(Requirement, project["dependencies"])]
    for extra in extras:
        waiting += map(Requirement, optional.get(extra, [extra]))
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        required = waiting.pop()
        one = normal(required.name), frozenset(required.extras)
        if one in seen:
            continue
        seen.add(one)
        waiting += _required_by(required)
    return {name for name, _ in seen}


@cache
def _requirements(name: str) -> list[Requirement]:
    """What an installed distribution requires; nothing of one for another system."""
    try:
        return [Requirement(text) for text in metadata.requires(name) or ()]
    except metadata.PackageNotFoundError:
        return []


def _required_by(required: Requirement) -> Iterator[Requirement]:
    """What an installed distribution requires with the extras of this requirement, here."""
    for one in _requirements(required.name):
        extras = ("", *required.extras)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras):
            yield one
