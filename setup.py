"""Packages of the wheel: the service, the Python client and its load test, the JavaScript client.

The rest is in pyproject.toml; its package finder cannot take a folder from outside a package.
"""

from setuptools import find_namespace_packages, setup

setup(
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
