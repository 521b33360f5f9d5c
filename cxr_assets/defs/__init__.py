"""All that knows Dagster: assets, checks, jobs, schedules, resources and the executor."""
