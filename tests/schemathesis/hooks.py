"""What Schemathesis cannot know by itself, for scripts/contract.

- Values of the formats that the service's document names and JSON Schema does not.
- How long each operation took: the longest calls are written to the file in ZHILIAN_CONTRACT_TIMES.
"""

import atexit
import json
import os
from collections import defaultdict

import schemathesis
from hypothesis import strategies

FORMATS = {
    "timezone": ["Asia/Shanghai", "UTC", "Europe/Berlin", "America/St_Johns", "Pacific/Apia"],
    "currency": ["CNY", "EUR", "USD", "JPY", "KWD"],
    "cron": ["*/10 * * * *", "0 3 * * *", "30 4 1 * *", "0 0 29 2 *"],
    # Nothing of this is ever reached: reserved names do not exist, and what is local is refused.
    "uri": ["https://vendor.invalid/", "https://vendor.invalid/v2", "http://127.0.0.1:9/", "http://[::1]/"],
}
for name, values in FORMATS.items():
    schemathesis.openapi.format(name, strategies.sampled_from(values))

times = defaultdict(list)


@schemathesis.hook
def after_call(context, case, response):
    operation = case.operation.definition.raw.get("operationId", case.operation.label)
    times[operation].append((round(response.elapsed * 1000), response.status_code))


@atexit.register
def write_times():
    path = os.environ.get("ZHILIAN_CONTRACT_TIMES")
    if path and times:
        with open(path, "w", encoding="utf-8") as file:
            json.dump(times, file)
