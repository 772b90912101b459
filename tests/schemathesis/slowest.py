"""Shows the slowest operations of a run, for scripts/contract.

    python slowest.py TIMES [LIMIT_MS]

With a limit, ends with 1 when an operation took longer that is not one of those that wait on purpose.
"""

import json
import sys

SHOWN = 12
# They wait for something outside, for as long as they say.
WAITING = {"test_system", "stream_events"}


def main(path, limit_ms=None):
    with open(path, encoding="utf-8") as file:
        times = json.load(file)
    rows = []
    for operation, calls in times.items():
        durations = sorted(duration for duration, _ in calls)
        rows.append((durations[-1], durations[len(durations) // 2], len(durations), operation))
    rows.sort(reverse=True)
    calls = sum(row[2] for row in rows)
    print(f"{calls} calls of {len(rows)} operations; the slowest:")
    print("  longest ms  median ms   calls  operation")
    for longest, median, count, operation in rows[:SHOWN]:
        print(f"  {longest:10}  {median:9}  {count:6}  {operation}")
    if limit_ms is None:
        return 0
    slow = [row[3] for row in rows if row[0] > int(limit_ms) and row[3] not in WAITING]
    if slow:
        print(f"longer than {limit_ms} ms, and not waiting for anything: {', '.join(slow)}")
    return 1 if slow else 0


sys.exit(main(*sys.argv[1:]))
