"""From films to class probabilities, the same in the report and in the service."""

import itertools
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForImageClassification
from transformers.utils.logging import disable_progress_bar

from cxr_serving import bundle
from cxr_serving.bundle import BundleError, BundleRecord
from cxr_serving.preprocessing import Preprocessing

# Of loading weights, which is a matter of milliseconds.
disable_progress_bar()


class Predictor:
    """A verified bundle, loaded and ready to answer.

    Attributes:
        record: the bundle's record.
        preprocessing: how a film becomes input of this model.
        model: the network, in eval mode.
    """

    def __init__(self, directory: Path, device: str | torch.device = "cpu") -> None:
        """Verify and load the bundle in ``directory``; safetensors only, nothing is unpickled.

        Raises:
            BundleError: the bundle is broken, or its parts contradict one another.
        """
        self.record: BundleRecord = bundle.verify(directory)
        try:
            self.preprocessing = Preprocessing.read(directory)
            model, loading = AutoModelForImageClassification.from_pretrained(
                directory,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
            )
        except Exception as error:
            raise BundleError(f"{directory} cannot be loaded: {error}") from error
        if missing := sorted(loading["missing_keys"]):
            raise BundleError(f"{directory / bundle.WEIGHTS_FILE} lacks {', '.join(missing)}")
        for found, recorded in (
            (tuple(dict(sorted(model.config.id2label.items())).values()), self.record.classes),
            (self.preprocessing.size, self.record.input_size),
        ):
            if found != recorded:
                raise BundleError(
                    f"{directory} contradicts itself: {found} in the model's configuration, "
                    f"{recorded} in {bundle.RECORD_FILE}"
                )
        # The weights are mapped from the file; without a copy, a change to it changes the model.
        for tensor in itertools.chain(model.parameters(), model.buffers()):
            tensor.data = tensor.data.clone()
        self._device = torch.device(device)
        self.model = model.eval().to(self._device)

    @torch.inference_mode()
    def predict(self, films: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Classify films that :meth:`Preprocessing.decode` has read.

        Args:
            films: uint8 [N, size, size].

        Returns:
            float32 [N, classes]: calibrated probabilities in class order, each row summing to 1.
        """
        pixels = self.preprocessing.normalise(torch.tensor(films).to(self._device))
        logits = self.model(pixel_values=pixels).logits.float()
        if self.record.flip_averaging:
            logits = (logits + self.model(pixel_values=pixels.flip(-1)).logits.float()) / 2
        probabilities: npt.NDArray[np.float32] = logits.softmax(dim=1).cpu().numpy()
        return probabilities
