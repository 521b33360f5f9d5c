"""Asset ``convnext_model``: the main model."""

from cxr_assets.defs.assets.training import model_asset

convnext_model = model_asset(
    "convnext_model",
    kinds={"pytorch", "lightning", "huggingface"},
    description=(
        "ConvNeXt V2, trained with Lightning and selected by macro F1 on validation. Research and "
        "education only; not a medical device."
    ),
)
