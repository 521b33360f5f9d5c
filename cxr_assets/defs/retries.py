"""Steps that Dagster tries again, where that can help: never after a wrong setting.

A ``dg.RetryPolicy`` would also retry a step that was terminated on purpose.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

# After a crash, such as one of the driver.
RETRY_SECONDS = 10
# Growing, in case a host or the network is down: 21 minutes in total.
WAITS = (60.0, 240.0, 960.0)

# Dagster's tags of a run that nobody launched by hand.
_UNATTENDED = ("dagster/schedule_name", "dagster/sensor_name")


@contextmanager
def retried(*permanent: type[Exception]) -> Iterator[None]:
    """Have Dagster retry the step once, unless one of ``permanent`` is raised."""
    try:
        yield
    except permanent:
        raise
    except Exception as error:
        raise dg.RetryRequested(max_retries=1, seconds_to_wait=RETRY_SECONDS) from error


@contextmanager
def reconnecting(
    context: dg.OpExecutionContext | dg.AssetExecutionContext, unreachable: type[Exception]
) -> Iterator[None]:
    """Have Dagster retry the step with growing waits after ``unreachable``, or an error due to it.

    Only in a run that a schedule or a sensor launched: a person is to see the error at once.
    """
    try:
        yield
    except Exception as error:
        attempts = context.retry_number
        temporary = any(isinstance(one, unreachable) for one in (error, error.__cause__))
        unattended = any(tag in context.run.tags for tag in _UNATTENDED)
        if not (temporary and unattended and attempts < len(WAITS)):
            raise
        wait = WAITS[attempts]
        context.log.warning(f"{error}. The next attempt is in {wait / 60:g} minutes")
        # Not by Dagster, which would notice that the run is terminated only after it.
        time.sleep(wait)
        raise dg.RetryRequested(max_retries=len(WAITS), seconds_to_wait=0) from error
