"""Asset ``hf_release``: the release folder, pushed to the Hub where that is configured."""

import dagster as dg
from huggingface_hub import get_token
from pydantic import Field

from cxr_assets.defs.assets.metrics_report import metrics_report
from cxr_assets.defs.resources import DataRoot, Experiment, settings
from cxr_assets.release.release import withheld, write_release
from cxr_assets.release.upload import push
from cxr_serving.model import bundle
from cxr_serving.model.bundle import BundleError, BundleRecord


class ReleaseConfig(dg.Config):
    """Of the asset ``hf_release``."""

    force: bool = Field(
        False,
        description="Push also what was made from synthetic images or trained from random weights.",
    )


@dg.asset(
    deps=[metrics_report],
    group_name="release",
    kinds={"huggingface"},
    owners=["team:maintainers"],
    description=(
        "The main model's bundle with model card, metrics and figures, ready for "
        "`from_pretrained`; pushed to the Hub when `CXR_HF_REPO` and a token are set. Then "
        "`latest.json` names it, for a service that follows what is released."
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
        pushed = f"not pushed, and so not released: {reason}; force: true pushes it all the same"
        released = False
    else:
        pushed = push(directory, settings.hf_repo, token)
    if released:
        bundle.write_pointer(releases, directory.name)
    try:
        bundle.prune(releases, resolved.keep_versions)
    except BundleError as error:
        context.log.warning(f"no older release was deleted: {error}")
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
