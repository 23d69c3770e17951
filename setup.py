"""Packages of the wheel: the service, the Python client and its load test, the JavaScript client.

The rest is in pyproject.toml; its package finder cannot take a folder from outside a package.
"""

import shutil
from pathlib import Path

from setuptools import find_namespace_packages, setup
from setuptools.command.build_py import build_py


class CleanBuild(build_py):
    """Build of the packages without modules that an earlier build of another version left."""

    def run(self):
        """Empty the packages' build folder, then build."""
        for package in {name.partition(".")[0] for name in self.packages}:
            built = Path(self.build_lib, package)
            if built.resolve() != Path(self.get_package_dir(package)).resolve():
                shutil.rmtree(built, ignore_errors=True)
        super().run()


setup(
    cmdclass={"build_py": CleanBuild},
    packages=[
        *find_namespace_packages(include=["sidecar", "sidecar.*"]),
        "sidecar.api.static.client",
        "vibevoice_asr_client",
        "vibevoice_asr_load_test",
    ],
    package_dir={
        "sidecar.api.static.client": "clients/js/src",
        "vibevoice_asr_client": "clients/python/src/vibevoice_asr_client",
        "vibevoice_asr_load_test": "clients/python/src/vibevoice_asr_load_test",
    },
)
