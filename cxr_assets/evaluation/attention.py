"""What the network looked at: Grad-CAM."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from captum.attr import LayerAttribution, LayerGradCam

from cxr_serving.predictor import Predictor


def grad_cam(
    predictor: Predictor, films: npt.NDArray[np.uint8], classes: npt.NDArray[np.integer[Any]]
) -> npt.NDArray[np.float32] | None:
    """Where a film speaks for a class, by the gradients of the last stage (arXiv 1610.02391).

    Args:
        predictor: of a ConvNeXt V2.
        films: uint8 [N, size, size].
        classes: [N], index of the class to explain in each film.

    Returns:
        float32 [N, size, size] in 0..1, 1 where it speaks most for the class; None for a network
        of another architecture.
    """
    model = predictor.model
    if not hasattr(model, "convnextv2"):
        return None
    cam = LayerGradCam(
        lambda pixels: model(pixel_values=pixels).logits, model.convnextv2.encoder.stages[-1]
    )
    pixels = predictor.preprocessing.normalise(torch.tensor(films).to(model.device))
    targets = torch.from_numpy(np.asarray(classes, dtype=np.int64)).to(model.device)
    coarse = cam.attribute(pixels, target=targets, relu_attributions=True)
    fine = LayerAttribution.interpolate(coarse, films.shape[1:], "bilinear")[:, 0]
    fine = fine / fine.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)
    heat: npt.NDArray[np.float32] = fine.detach().cpu().numpy()
    return heat
