"""For those who operate the service, and their machines: no key is needed."""

from fastapi import APIRouter, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from cxr_serving.http import errors
from cxr_serving.http.errors import ServiceError
from cxr_serving.http.schemas import Health, ModelName, Readiness
from cxr_serving.http.service import ServiceDependency

router = APIRouter()


@router.get("/health")
async def health(request: Request) -> Health:
    """Whether the process answers."""
    return Health(request_id=request.state.request_id)


@router.get("/ready", responses=errors.responses(503))
async def ready(request: Request, service: ServiceDependency) -> Readiness:
    """Whether a model serves, and whether it is the newest."""
    if request.app.state.draining:
        raise ServiceError(503, "draining", "the service is shutting down")
    model = service.model()
    if service.batcher.progress.stalled:
        raise ServiceError(
            503,
            "stalled",
            f"images wait and none was answered for {service.settings.deadline_seconds:g} s: send "
            "fewer, and restart the service if this persists",
        )
    return Readiness(
        model=ModelName.of(model.record),
        warning=service.watcher.state.problem,
        dicom=service.classifier.dicom_problem,
        request_id=request.state.request_id,
    )


@router.get("/metrics", response_class=Response)
async def metrics(service: ServiceDependency) -> Response:
    """Metrics in the Prometheus text format."""
    return Response(service.metrics.render(), media_type=CONTENT_TYPE_LATEST)
