"""Measures pulls: this service, dlt and COPY in turns, and memory by the number of pages.

Called by bench/pull/run, which has started PostgreSQL and Redis. What is measured, and how fairly, is in
README.md beside this file.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[1:1] = [str(HERE.parent / "api"), str(HERE.parent / "webhooks")]

from contenders import Failed, Servers, existing, free_port, say  # noqa: E402
from report import machine_facts, table  # noqa: E402

import contestants  # noqa: E402
from contestants import Ours  # noqa: E402
from vendor import PAGE_ROWS, Vendor  # noqa: E402

TO_COPY, MEMORY_SHARE = 0.5, 0.20
NAMES = {"ours": "zhilian-sync", "dlt": "dlt", "copy": "COPY, the limit"}


class Bench:
    """What everything here needs."""

    def __init__(self, options):
        self.options = options
        self.servers = Servers(os.environ)
        self.scratch = Path(os.environ["BENCH_SCRATCH"])
        self.home = Path(os.environ["BENCH_HOME"])
        self.program = existing(options.program, "cargo build --release")

    def ours(self, name, redis_number):
        return Ours(self.servers, self.scratch, free_port(), self.program, name, redis_number)


def speed(bench, vendor):
    """The contestants in turns, each once before it counts."""
    records = bench.options.pages * PAGE_ROWS
    ours, turns = bench.ours("speed", 1), {name: [] for name in NAMES if name != "dlt" or bench.options.dlt}
    ours.start()
    for turn in range(bench.options.rounds + 1):
        found = {"ours": ours.pull(vendor.url("pages"), records)}
        if bench.options.dlt:
            found["dlt"] = contestants.dlt(bench, vendor.url("pages"), records, turn)
        found["copy"] = ours.copy(records)
        if turn:
            for name, seconds in found.items():
                turns[name].append(records / seconds)
        say(("before it counts: " if not turn else "") + ", ".join(f"{name} {records / seconds:,.0f}/s" for name, seconds in found.items()))
    ours.stop()
    return turns


def memory(bench, vendor):
    """The most memory of a fresh process that reads few pages, and of one that reads many."""
    peaks = {}
    for redis_number, (name, pages) in enumerate((("few", bench.options.few), ("many", bench.options.many)), start=2):
        vendor.make(name, pages)
        ours = bench.ours(f"memory_{name}", redis_number)
        ours.start()
        ours.pull(vendor.url(name), pages * PAGE_ROWS)
        peaks[pages] = ours.peak_mb()
        ours.stop()
        say(f"{pages} pages: at most {peaks[pages]:.1f} MB")
    return peaks


def text(results):
    facts, options = results["machine"], results["options"]
    parts = [
        f"{facts['at']} · {facts['machine']} · {facts['postgres']} · a durable write of 8 KB takes {facts['write_ms']:.2f} ms"]
    if "speed" in results:
        middle = {name: statistics.median(rates) for name, rates in results["speed"].items()}
        rows = [
            [NAMES[name], f"{middle[name]:,.0f}", f"{min(rates):,.0f} – {max(rates):,.0f}", f"{middle['ours'] / middle[name]:.2f} ×",
             f"{TO_COPY} ×" if name == "copy" else "", ("yes" if middle["ours"] >= TO_COPY * middle["copy"] else "**no**") if name == "copy" else ""]
            for name, rates in results["speed"].items()
        ]
        parts.append(
            f"{options['pages'] * PAGE_ROWS:,} records in pages of {PAGE_ROWS}, {options['rounds']} turns of each in alternation; medians.")
        parts.append(table(["", "records/s", "slowest – fastest", "ours beside it", "goal", "reached"], rows))
    if "memory" in results:
        (few, least), (many, most) = results["memory"].items()
        share = most / least - 1
        parts.append(table(["", "most memory, MB"], [[f"{few} pages", f"{least:.1f}"], [f"{many} pages", f"{most:.1f}"]]))
        parts.append(f"{share:+.0%} from {few} to {many} pages; at most {MEMORY_SHARE:+.0%}: {'yes' if share <= MEMORY_SHARE else '**no**'}")
    return "\n\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description="Measures pulls beside dlt and COPY.")
    parser.add_argument("--only", choices=["speed", "memory"], help="only one of the two")
    parser.add_argument("--program", default="target/release/zhilian-sync")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each that count")
    parser.add_argument("--pages", type=int, default=200, help="pages of 500 records")
    parser.add_argument("--few", type=int, default=100, help="pages of the small list for memory")
    parser.add_argument("--many", type=int, default=2000, help="pages of the large list for memory")
    parser.add_argument("--no-dlt", dest="dlt", action="store_false", help="without dlt, for a quick look")
    options = parser.parse_args()
    bench = Bench(options)
    vendor = Vendor(bench.scratch, free_port())
    vendor.make("pages", options.pages)
    vendor.start()
    results = {"options": vars(options), "machine": machine_facts(bench)}
    try:
        if options.only != "memory":
            results["speed"] = speed(bench, vendor)
        if options.only != "speed":
            results["memory"] = memory(bench, vendor)
    finally:
        vendor.stop()
    (bench.home / "last.json").write_text(json.dumps(results, indent=1))
    print(text(results))


if __name__ == "__main__":
    try:
        main()
    except Failed as failure:
        sys.exit(f"bench/pull: {failure}")
