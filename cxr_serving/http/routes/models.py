"""Which model serves, which others there are, and which one should serve."""

import asyncio
from typing import Literal

from fastapi import APIRouter, Depends, Request
from fastapi.security import HTTPBearer

from cxr_serving.http import errors
from cxr_serving.http.admission import AdminRoute, UserRoute
from cxr_serving.http.errors import ServiceError
from cxr_serving.http.schemas import (
    ModelDescription,
    ModelVersion,
    ModelVersions,
    Pin,
    TestMetrics,
)
from cxr_serving.http.service import Service, ServiceDependency
from cxr_serving.http.watcher import State, Version
from cxr_serving.model.bundle import BundleError
from cxr_serving.model.report import ReportError, find_report

router = APIRouter(
    route_class=UserRoute,
    dependencies=[Depends(HTTPBearer(auto_error=False))],  # for OpenAPI
    responses=errors.responses(401, 429),
)
admin_router = APIRouter(
    route_class=AdminRoute,
    dependencies=[Depends(HTTPBearer(auto_error=False))],  # for OpenAPI
    responses=errors.responses(401, 403),
)


@router.get("/model", responses=errors.responses(503))
async def model(request: Request, service: ServiceDependency) -> ModelDescription:
    """The record of the model that serves, and its results on test images."""
    model = service.model()
    settings = service.settings
    directory = settings.directory / model.record.version
    test, problem = None, None
    try:
        report = await asyncio.to_thread(find_report, settings.folder, directory)
        test = report and TestMetrics.of(report)
    except ReportError as error:
        problem = str(error)
    return ModelDescription(
        model=model.record,
        runtime=model.runtime,
        following=settings.follow,
        pinned=service.watcher.state.pinned is not None,
        confidence=settings.confidence,
        gate=settings.gate,
        test=test,
        test_problem=problem,
        dicom=service.classifier.dicom_problem,
        request_id=request.state.request_id,
    )


@router.get("/models")
async def models(request: Request, service: ServiceDependency) -> ModelVersions:
    """The versions on disk, newest first."""
    return await _versions(request, service)


@admin_router.post("/model/pin", responses=errors.responses(400, 408, 409, 413, 422))
async def pin(request: Request, service: ServiceDependency, body: Pin) -> ModelVersions:
    """Serve this version even when a newer one appears, for example to roll back."""
    try:
        await asyncio.to_thread(service.watcher.pin, body.version)
    except BundleError as error:
        raise ServiceError(409, "not_servable", f"nothing has changed: {error}") from error
    return await _versions(request, service)


@admin_router.post("/model/unpin")
async def unpin(request: Request, service: ServiceDependency) -> ModelVersions:
    """Follow the newest model again."""
    await asyncio.to_thread(service.watcher.unpin)
    return await _versions(request, service)


async def _versions(request: Request, service: Service) -> ModelVersions:
    found = await asyncio.to_thread(service.watcher.versions)
    state = service.watcher.state
    return ModelVersions(
        models=[_describe(version, state) for version in found],
        pinned=state.pinned,
        request_id=request.state.request_id,
    )


def _describe(version: Version, state: State) -> ModelVersion:
    record = version.record
    status: Literal["serving", "previous", "available", "rejected"] = "available"
    if state.model is not None and version.version == state.model.record.version:
        status = "serving"
    elif version.reason is not None:
        status = "rejected"
    elif state.previous is not None and version.version == state.previous.record.version:
        status = "previous"
    return ModelVersion(
        version=version.version,
        created_at=record and record.created_at,
        synthetic=record and record.synthetic,
        validation=record and record.validation,
        status=status,
        reason=version.reason,
    )
