"""The service that everybody writes first, to measure ours against: ``python -m ... PORT BUNDLE``.

The image goes to a temporary file, is decoded whole, to colour, resized by transformers' image
processor, and answered by torch, one by one, in the event loop.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, UploadFile
from PIL import Image
from transformers import AutoImageProcessor, AutoModelForImageClassification


def create_app(directory: Path) -> FastAPI:
    """The service on the bundle in ``directory``."""
    app = FastAPI()
    processor = AutoImageProcessor.from_pretrained(directory, backend="pil")
    model = AutoModelForImageClassification.from_pretrained(directory).eval()

    @app.post("/predict")
    async def predict(file: UploadFile) -> dict[str, Any]:
        with tempfile.NamedTemporaryFile(suffix=".jpeg") as temporary:
            temporary.write(await file.read())
            temporary.flush()
            image = Image.open(temporary.name).convert("RGB")
        inputs = processor(images=image, return_tensors="pt")
        with torch.no_grad():
            probs = model(**inputs).logits.softmax(dim=1)[0].tolist()
        pred = max(range(len(probs)), key=probs.__getitem__)
        return {"pred": pred, "label": model.config.id2label[pred], "probs": probs}

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    return app


if __name__ == "__main__":
    uvicorn.run(create_app(Path(sys.argv[2])), port=int(sys.argv[1]), access_log=False)
