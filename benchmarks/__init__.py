"""What the project costs in calls, time and memory, measured against the sandbox API: `python -m benchmarks`."""
