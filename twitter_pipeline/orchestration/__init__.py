"""All that knows Dagster: resources, ops, jobs, sensors. Each reads its context, calls one plain function, reports."""
