"""A job on the cluster; its arguments are the data root and the name of the job."""

import os
import sys
from pathlib import Path

from cxr_assets import presence
from cxr_assets.cluster.call import Job
from cxr_assets.layout import Layout


def main(root: str, name: str) -> int:
    """Run the step of a job; the exit status is 0 if it succeeded."""
    layout = Layout(Path(root))
    job = Job(layout, name)
    # Whatever waits for something else here, nobody waits for it.
    presence.watch(job.alive, lambda: os._exit(1))
    # Only now: the libraries take seconds, or a minute where the node is busy.
    from cxr_assets.cluster import steps

    return 0 if steps.run(job, layout) else 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
