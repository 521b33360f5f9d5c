"""What is imported before anything is computed: every process pays for it."""

import subprocess
import sys

import pytest

# Each takes a good part of a second, or of 100 MB.
COMPUTING = {
    "cleanlab", "lightning", "matplotlib", "mlflow", "onnx", "onnxruntime", "sklearn", "torch",
    "torchmetrics", "transformers",
}  # fmt: skip
# On one machine nothing of it is imported, whatever is installed.
SEVERAL = {"boto3", "botocore", "dagster_k8s", "dagster_ray", "kubernetes", "ray", "redis"}
READING = {
    "PIL", "dagster_mlflow", "kagglehub", "numpy", "pandas", "pyarrow", "requests", "safetensors",
    "scipy", "sqlalchemy",
}  # fmt: skip


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (["cxr_assets.definitions"], COMPUTING | READING),
        (
            [
                *("cxr_assets.radiographs.raw", "cxr_assets.radiographs.preparation"),
                *("cxr_assets.forgetting", "cxr_assets.checking", "cxr_assets.summary"),
                *("cxr_assets.release.release", "cxr_assets.release.command", "cxr_assets.sweep"),
                *("cxr_assets.evaluation.screening", "cxr_assets.evaluation.report"),
            ],
            COMPUTING | {"kagglehub"},
        ),
        (
            ["cxr_assets.training", "cxr_assets.learning.export", "cxr_assets.learning.plan"],
            {
                *("cleanlab", "kagglehub", "lightning", "matplotlib", "mlflow", "onnx"),
                *("onnxruntime", "sklearn", "scipy", "torchmetrics"),
                "transformers.modeling_utils",
            },
        ),
        # A job on a cluster whose run has ended meanwhile sees it before it imports.
        (["cxr_assets.cluster.job"], COMPUTING | READING | {"ray"}),
    ],
    ids=["the definitions", "steps and commands without a network", "a training to reuse", "a job"],
)
def test_libraries_that_are_not_needed_are_not_imported(
    modules: list[str], absent: set[str]
) -> None:
    program = f"import sys, {', '.join(modules)}; print(*sys.modules)"
    loaded = subprocess.check_output([sys.executable, "-c", program], text=True).split()
    assert not (absent | SEVERAL) & set(loaded)
