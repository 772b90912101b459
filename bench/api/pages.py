"""Filtered pages out of large tables, beside the same pages out of small ones.

Two databases with the same kinds of rows, a service on each, and the same requests to both in turns.
"""

import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlencode

import tables
from contenders import Failed
from service import rows_of

GOAL = 3.0
LIMIT = 20
# How often the services take turns within the requests of one page.
TURNS = 10
# Tables that are filled at a time.
FILLING = 2

WORDS = (
    "Pages of 20 rows out of {large:,} rows and out of {small:,}, p50 of {requests} requests each, for a caller of "
    "the whole chain and for one of a single store (one row in two hundred).")


def filters_of(document, path):
    """Every filter that the API's document names for a list."""
    operation = document["paths"][path]["get"]
    names = [one["name"] for one in operation.get("parameters", []) if one["in"] == "query"]
    return [name for name in names if name not in ("limit", "cursor")]


def questions(document, path, values):
    """The pages of one list: without a filter, in the middle, each filter alone, and a stretch of time."""
    # A list of records needs its stream, whatever else is asked for.
    always = {"stream": values["stream"]} if "stream" in values else {}
    asked = {"no filter": always}
    for name in filters_of(document, path):
        if name not in values:
            raise Failed(f"{path} has a filter `{name}`; expected a value for it in bench/api/tables.py")
        if name not in always:
            asked[name] = {**always, name: values[name]}
    if "from" in values and "to" in values:
        asked["from and to"] = {**always, "from": values["from"], "to": values["to"]}
    return asked


class Side:
    """A service with its tables full."""

    def __init__(self, bench, name, redis_number, rows, say):
        self.rows = rows
        self.service = bench.service(name, redis_number)
        self.service.start()
        self.systems = {kind: self.service.make_system(kind) for kind in tables.SYSTEM_TYPES}
        began = time.perf_counter()
        with ThreadPoolExecutor(FILLING) as threads:
            for _ in threads.map(lambda table: tables.fill(self.service, table, self.systems, rows), tables.TABLES):
                pass  # Asked for, so that a failure is heard.
        say(f"{name}: {len(tables.TABLES)} tables of {rows:,} rows in {time.perf_counter() - began:.0f} s")
        token = self.service.add_user("manager", "store_manager", tables.STORE)
        self.callers = {"chain": self.service.connection(), "store": self.service.connection(token)}
        self.document = self.service.call("GET", "/api/v1/openapi.json")[1]

    def values(self, path):
        return tables.values(path, self.systems, self.rows)

    def ask(self, caller, path, query, times):
        """How long each request took, in milliseconds, and how many rows the page holds."""
        connection, took, content = self.callers[caller], [], b"[]"
        target = f"{path}?{urlencode({**query, 'limit': LIMIT})}"
        for _ in range(times):
            began = time.perf_counter()
            content = connection.get(target)
            took.append((time.perf_counter() - began) * 1000)
        return took, len(rows_of(content))


def measure(bench, say):
    options = bench.options
    sides = {
        "small": Side(bench, "pages_small", 2, options.small, say),
        "large": Side(bench, "pages_large", 3, options.large, say),
    }
    bench.servers.sql("postgres", "CHECKPOINT")
    found = []
    for path in tables.LISTS:
        values = {name: side.values(path) for name, side in sides.items()}
        asked = {name: questions(side.document, path, values[name]) for name, side in sides.items()}
        for name, side in sides.items():
            middle = {**asked[name]["no filter"], "cursor": tables.cursor(side.rows)}
            asked[name]["a page in the middle"] = middle
        for question in asked["small"]:
            for caller in ("chain", "store"):
                found.append(compare(sides, path, question, caller, {name: asked[name][question] for name in sides}, options))
        worst = max(found, key=lambda one: one["ratio"])
        say(f"{path}: the worst so far is {worst['ratio']:.2f} × ({worst['path']}, {worst['question']}, {worst['caller']})")
    for side in sides.values():
        side.service.stop()
    return found


def compare(sides, path, question, caller, queries, options):
    took, rows = {name: [] for name in sides}, {}
    for name, side in sides.items():
        side.ask(caller, path, queries[name], 3)
    for _ in range(TURNS):
        for name, side in sides.items():
            times, rows[name] = side.ask(caller, path, queries[name], max(1, options.requests // TURNS))
            took[name] += times
    p50 = {name: statistics.median(times) for name, times in took.items()}
    return {
        "path": path, "question": question, "caller": caller, "rows": rows, "small_ms": p50["small"],
        "large_ms": p50["large"], "ratio": p50["large"] / p50["small"],
    }


def rows(found):
    heads = ["list", "filter", "caller", "rows", "small, p50", "large, p50", "ratio", "goal", "reached"]
    lines = [
        [f"`{one['path']}`", one["question"], one["caller"], f"{one['rows']['small']} / {one['rows']['large']}", f"{one['small_ms']:.2f} ms",
         f"{one['large_ms']:.2f} ms", f"{one['ratio']:.2f} ×", f"{GOAL:.0f} ×", "yes" if one["ratio"] <= GOAL else "**no**"]
        for one in found
    ]
    return heads, lines
