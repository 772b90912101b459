"""Measures the API: batches beside the bulk upsert of pulls, and pages of large tables beside small ones.

Called by bench/api/run, which has started PostgreSQL and Redis. What is measured, and how fairly, is in
README.md beside this file.
"""

import argparse
import json
import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "webhooks"))

from contenders import Failed, Servers, existing, free_port, say  # noqa: E402
from report import machine_facts, table  # noqa: E402

import batches  # noqa: E402
import pages  # noqa: E402
from service import Service  # noqa: E402


class Bench:
    """What everything here needs."""

    def __init__(self, options):
        self.options = options
        self.servers = Servers(os.environ)
        self.scratch = Path(os.environ["BENCH_SCRATCH"])
        self.home = Path(os.environ["BENCH_HOME"])
        self.program = existing(options.program, "cargo build --release")
        self.bulk_upsert = existing(
            options.bulk_upsert, "cargo build --release -p zhilian-sync-store --example bulk_upsert")

    def service(self, name, redis_number):
        return Service(self.servers, self.scratch, free_port(), self.program, name, redis_number)


def text(results):
    facts = results["machine"]
    parts = [
        f"{facts['at']} · {facts['machine']} · {facts['postgres']} · a durable write of 8 KB takes {facts['write_ms']:.2f} ms"]
    if "batches" in results:
        parts += [batches.WORDS.format(**results["options"]), table(*batches.rows(results["batches"]))]
    if "pages" in results:
        parts += [pages.WORDS.format(**results["options"]), table(*pages.rows(results["pages"]))]
    return "\n\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description="Measures batches and filtered pages of the API.")
    parser.add_argument("--only", choices=["batches", "pages"], help="only one of the two")
    parser.add_argument("--program", default="target/release/zhilian-sync")
    parser.add_argument("--bulk-upsert", default="target/release/examples/bulk_upsert")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each kind of record")
    parser.add_argument("--batches", type=int, default=15, help="batches of one turn")
    parser.add_argument("--batch-rows", type=int, default=1000, help="records of one batch")
    parser.add_argument("--large", type=int, default=1_000_000, help="rows of each large table")
    parser.add_argument("--small", type=int, default=10_000, help="rows of each small table")
    parser.add_argument("--requests", type=int, default=200, help="requests for each page")
    options = parser.parse_args()
    bench = Bench(options)
    results = {"options": vars(options), "machine": machine_facts(bench)}
    if options.only != "pages":
        results["batches"] = batches.measure(bench, say)
    if options.only != "batches":
        results["pages"] = pages.measure(bench, say)
    (bench.home / "last.json").write_text(json.dumps(results, indent=1))
    print(text(results))


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"bench/api: {failure}")
