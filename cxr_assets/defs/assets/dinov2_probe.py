"""Asset ``dinov2_probe``: the baseline that the main model must clearly beat."""

from cxr_assets.defs.assets.training import model_asset
from cxr_serving.model import DISCLAIMER

dinov2_probe = model_asset(
    "dinov2_probe",
    kinds={"pytorch", "lightning", "huggingface"},
    description=(
        "The baseline: a linear layer on the CLS embedding of a frozen DINOv2. The main model must "
        f"beat it clearly to be released. {DISCLAIMER}"
    ),
)
