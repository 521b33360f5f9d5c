"""Asset ``convnext_model``: the main model."""

from cxr_assets.defs.assets.training import model_asset

convnext_model = model_asset(
    "convnext_model",
    kinds={"pytorch", "lightning", "huggingface"},
    description=(
        "The main model: a ConvNeXt V2, trained with Lightning. The epoch with the best macro F1 "
        "on the validation split is kept. For research and education only; not a medical device."
    ),
)
