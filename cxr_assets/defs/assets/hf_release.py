"""Asset ``hf_release``: the release, pushed to the Hub if that is configured."""

import dagster as dg
from huggingface_hub import get_token
from pydantic import Field

from cxr_assets.defs.assets import GROUP, OWNERS, WEEKLY
from cxr_assets.defs.assets.metrics_report import metrics_report
from cxr_assets.defs.resources import DataRoot, Experiment, settings
from cxr_assets.release.release import withheld, write_release
from cxr_assets.release.upload import push
from cxr_serving.model import store
from cxr_serving.model.bundle import BundleError, BundleRecord


class ReleaseConfig(dg.Config):
    """Launchpad settings of the asset ``hf_release``."""

    force: bool = Field(
        False,
        description=(
            "Push the model even if it was trained on synthetic images or from random weights."
        ),
    )


@dg.asset(
    deps=[metrics_report],
    group_name=GROUP,
    kinds={"huggingface"},
    owners=OWNERS,
    freshness_policy=WEEKLY,
    description=(
        "The main model with its card, metrics and plots, ready for `from_pretrained`. Pushed to "
        "the Hugging Face Hub if `CXR_HF_REPO` and a token are set. A service that follows "
        "releases then serves it."
    ),
)
def hf_release(
    context: dg.AssetExecutionContext,
    config: ReleaseConfig,
    experiment: Experiment,
    data_root: DataRoot,
) -> dg.MaterializeResult[None]:
    resolved = experiment.resolve()
    releases = data_root.layout.releases
    directory = write_release(data_root.layout, settings.hf_repo, resolved)
    reason = None if config.force else withheld(BundleRecord.read(directory))
    token = get_token()
    released = True
    if settings.hf_repo is None:
        pushed = "not pushed: CXR_HF_REPO is not set"
    elif token is None:
        pushed = "not pushed: no token (HF_TOKEN) is set"
    elif reason is not None:
        pushed = f"not pushed, and so not released: {reason}; set force: true to push it anyway"
        released = False
    else:
        pushed = push(directory, settings.hf_repo, token)
    if released:
        store.write_pointer(releases, directory.name)
    try:
        store.prune(releases, resolved.keep_versions)
    except BundleError as error:
        context.log.warning(f"older releases were not deleted: {error}")
    context.log.info(f"release {directory.name}: {pushed}")
    return dg.MaterializeResult(
        metadata={
            "release": dg.MetadataValue.path(str(directory)),
            "version": directory.name,
            "hub": pushed,
            "released": released,
            "card": dg.MetadataValue.md((directory / "README.md").read_text()),
        },
        data_version=dg.DataVersion(directory.name),
    )
