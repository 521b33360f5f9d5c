import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.unattended.clock import Clock

SATURDAY = datetime(2100, 1, 2, 12, tzinfo=UTC)
CODE = """
import datetime, json, time
from datetime import datetime as before
started = time.monotonic()
times = [before.now(datetime.UTC)]
time.sleep(0.1)
waited = time.monotonic() - started
times += [before.now(datetime.UTC), before.fromtimestamp(time.time(), datetime.UTC)]
times += [before.utcnow().replace(tzinfo=datetime.UTC)]
import pandas
from dagster._time import get_current_datetime
times.append(get_current_datetime())
print(json.dumps({"waited": waited, "times": [each.isoformat() for each in times]}))
"""


def live(clock: Clock) -> Any:
    environment = os.environ | clock.environment
    done = subprocess.run(
        [sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_processes_live_in_the_simulated_time_and_wait_in_the_real_one(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock", SATURDAY)
    for day in (SATURDAY, SATURDAY + timedelta(weeks=1)):
        clock.set(day)
        seen = live(clock)
        times = [datetime.fromisoformat(each) for each in seen["times"]]
        assert times == sorted(times)
        assert day < times[0]
        assert times[-1] <= clock.now + timedelta(minutes=1)
        assert 0.1 <= seen["waited"] < 60


def test_of_each_minute_its_last_seconds_are_lived(tmp_path: Path) -> None:
    clock = Clock(tmp_path / "clock", SATURDAY)
    (begun,) = {datetime.fromisoformat(live(clock)["times"][0]).replace(microsecond=0)}
    assert begun.second >= 50
