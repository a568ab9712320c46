from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize(
    "module", ["trainkit.fit", "trainkit.diagnose.early_stopping", "trainkit.fit.evaluation.metrics"]
)
def test_the_pure_parts_come_without_torch(module):
    subprocess.run([sys.executable, "-c", f"import sys, {module}; assert 'torch' not in sys.modules"], check=True)


def test_the_module_is_the_function():
    code = "import trainkit as tk, trainkit.fit; assert callable(tk.fit); assert tk.fit is trainkit.fit"
    subprocess.run([sys.executable, "-c", code], check=True)
