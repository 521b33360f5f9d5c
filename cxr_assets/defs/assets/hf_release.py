"""Asset ``hf_release``: the release, pushed to the Hub if that is configured."""

import dagster as dg
from pydantic import Field

from cxr_assets.defs.assets import GROUP, OWNERS, WEEKLY
from cxr_assets.defs.assets.metrics_report import metrics_report
from cxr_assets.defs.resources import DataRoot, Experiment, settings
from cxr_assets.defs.retries import reconnecting
from cxr_assets.release import promotion
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
        "The main model with its card, metrics and plots, ready for `from_pretrained`. Released if "
        "it fulfils every clause of `release.rule`: then it is pushed to the Hugging Face Hub, if "
        "`CXR_HF_REPO` and a token are set, and a service that follows releases serves it. Else it "
        "is held, until a person promotes it with `cxr release promote`."
    ),
)
def hf_release(
    context: dg.AssetExecutionContext,
    config: ReleaseConfig,
    experiment: Experiment,
    data_root: DataRoot,
) -> dg.MaterializeResult[None]:
    from cxr_assets.release.release import withheld, write_release
    from cxr_assets.release.upload import UnreachableError, configured

    resolved = experiment.resolve()
    hub = configured(settings.hf_repo)
    with reconnecting(context, UnreachableError), data_root.exchanged(context) as layout:
        directory = write_release(layout, settings.hf_repo, resolved, context.log.info)
        reason = withheld(BundleRecord.read(directory)) if hub.push and not config.force else None
        decision = promotion.decide(layout, directory, hub.push, reason)
        protected = promotion.newest_held(layout)
        try:
            store.prune(layout.releases, resolved.keep_versions, [protected])
        except BundleError as error:
            context.log.warning(f"older releases were not deleted: {error}")
    if decision.decision == "held":
        for clause in decision.failed:
            context.log.warning(f"{clause.name} failed: {clause.text}")
        context.log.warning(
            f"release {directory.name} is {decision.summary}. "
            f"{promotion.consequence(directory.name)}"
        )
    else:
        context.log.info(f"release {directory.name}: {decision.summary}")
    return dg.MaterializeResult(
        metadata={
            "release": dg.MetadataValue.path(str(directory)),
            "version": directory.name,
            "decision": decision.summary,
            "decided_at": decision.decided_at.isoformat(timespec="seconds"),
            "champion": decision.champion or "none",
            **promotion.shown(decision.clauses),
            "hub": decision.pushed or hub.reason or "not pushed: held",
            "card": dg.MetadataValue.md((directory / "README.md").read_text(encoding="utf-8")),
        },
        data_version=dg.DataVersion(directory.name),
    )
