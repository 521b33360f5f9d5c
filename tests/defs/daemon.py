"""What Dagster's daemon works on: the definitions, loaded in this process."""

import sys

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget


def loaded(instance: dg.DagsterInstance) -> WorkspaceProcessContext:
    """A context manager: what a daemon that has just started works on."""
    place = LoadableTargetOrigin(
        executable_path=sys.executable, module_name="cxr_assets.definitions"
    )
    origin = InProcessCodeLocationOrigin(place, location_name="cxr")
    return WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin))
