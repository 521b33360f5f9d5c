"""Asset ``convnext_model``: the main model."""

from cxr_assets.defs.assets.training import model_asset
from cxr_serving.model import DISCLAIMER

convnext_model = model_asset(
    "convnext_model",
    kinds={"pytorch", "lightning", "huggingface"},
    description=(
        "The main model: a ConvNeXt V2, trained with Lightning. The epoch with the best macro F1 "
        f"on the validation split is kept. {DISCLAIMER}"
    ),
)
