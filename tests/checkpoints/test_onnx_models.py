"""ONNX Runtime, as the engines get it."""

import ast
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CI = ("CI", "TF_BUILD", "GITHUB_ACTIONS", "ORT_DISABLE_TELEMETRY", "ORT_RUNNING_UNIT_TESTS")
"""Where one of these is set the runtime is silent by itself."""


def test_onnxruntime_writes_no_telemetry_file(tmp_path: Path) -> None:
    """Its telemetry begins with a file that numbers the machine."""
    code = (
        "import numpy, time\n"
        "from sidecar.diarization.speaker_models import load_models\n"
        "models = load_models()\n"
        "models.trunk.run(None, {'fbank': numpy.zeros((1, 200, 80), numpy.float32)})\n"
        "time.sleep(0.5)\n"
    )
    quiet = {name: value for name, value in os.environ.items() if name not in CI}
    own = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=quiet | own, check=True)
    assert list(tmp_path.rglob("*")) == []


def test_onnxruntime_is_imported_in_one_module_only() -> None:
    importers = {
        path.relative_to(ROOT / "sidecar").as_posix()
        for path in (ROOT / "sidecar").rglob("*.py")
        if "onnxruntime" in path.read_text("utf-8")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Import) and not in_type_checking(path, node)
        for name in node.names
        if name.name.partition(".")[0] == "onnxruntime"
    }
    assert importers == {"checkpoints/onnx_models.py"}


def in_type_checking(path: Path, node: ast.Import) -> bool:
    """Whether an import is for types alone."""
    guards = (
        one
        for one in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(one, ast.If) and ast.unparse(one.test) == "TYPE_CHECKING"
    )
    return any(guard.lineno < node.lineno <= (guard.end_lineno or 0) for guard in guards)
