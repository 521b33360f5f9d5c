"""All that knows Dagster: assets, checks, jobs, schedules, sensors, resources and the executor."""
