"""Entry point of the executable and of `python -m sidecar.main`; `main:app` for uvicorn."""

import sys
from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent
if sys.path and Path(sys.path[0] or ".").resolve() == _HERE:
    # Started from inside the package's folder: its parent has to be importable. This folder must
    # not be, or its modules would exist twice.
    sys.path[0] = str(_HERE.parent)


def __getattr__(name: str) -> Any:
    """Return `app`, built on first access: importing this module has no side effects."""
    if name == "app":
        from sidecar.server.app import create_app

        return create_app()
    raise AttributeError(name)


if __name__ == "__main__":
    from sidecar.cli import main

    main()
