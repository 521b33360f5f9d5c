"""All that knows Dagster: assets, checks, jobs, schedules, sensors, resources and the executor.

Assets and checks import the code that they run when they run. Every command, reload and launched
run loads the definitions: with torch, MLflow and pandas, that would take ten times as long.
"""
