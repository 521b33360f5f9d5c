"""Asset ``hf_release``: the release folder, pushed to the Hub where that is configured."""

import dagster as dg
from huggingface_hub import get_token

from cxr_assets.assets.metrics_report import metrics_report
from cxr_assets.release.release import write_release
from cxr_assets.release.upload import push
from cxr_assets.resources import DataRoot, Experiment, settings
from cxr_serving import bundle


@dg.asset(
    deps=[metrics_report],
    group_name="release",
    kinds={"huggingface"},
    owners=["team:maintainers"],
    description=(
        "The main model's bundle with model card, metrics and figures, ready for "
        "`from_pretrained`; pushed to the Hub when `CXR_HF_REPO` and a token are set."
    ),
)
def hf_release(
    context: dg.AssetExecutionContext, experiment: Experiment, data_root: DataRoot
) -> dg.MaterializeResult[None]:
    resolved = experiment.resolve()
    directory = write_release(data_root.layout, settings.hf_repo, resolved)
    bundle.prune(data_root.layout.releases, resolved.keep_versions)
    token = get_token()
    if settings.hf_repo is None:
        pushed = "not pushed: CXR_HF_REPO is not set"
    elif token is None:
        pushed = "not pushed: no token (HF_TOKEN) is set"
    else:
        pushed = push(directory, settings.hf_repo, token)
    context.log.info(f"release {directory.name}: {pushed}")
    return dg.MaterializeResult(
        metadata={
            "release": dg.MetadataValue.path(str(directory)),
            "version": directory.name,
            "hub": pushed,
            "card": dg.MetadataValue.md((directory / "README.md").read_text()),
        },
        data_version=dg.DataVersion(directory.name),
    )
