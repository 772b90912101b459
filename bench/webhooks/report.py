"""The figures as tables for people: medians of the rounds, and what they are beside one another."""

import statistics
import subprocess
from datetime import datetime, timezone

import machine

TITLES = {
    "zhilian": "zhilian-sync",
    "fastify": "Fastify + pg + BullMQ",
    "fastapi": "FastAPI + asyncpg + Redis",
    "pgbench": "pgbench, single inserts",
}


def machine_facts(bench):
    version = subprocess.run(
        [bench.servers.programs / "postgres", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    return {
        "at": datetime.now(timezone.utc).isoformat(timespec="minutes"),
        "machine": machine.describe(),
        "postgres": version,
        "write_ms": machine.write_ms(bench.scratch),
    }


def middle(rounds, value):
    return statistics.median(value(one) for one in rounds)


def table(heads, rows):
    """A Markdown table; the first column to the left, the others to the right."""
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows])


def ms(microseconds):
    return f"{microseconds / 1000:.1f} ms"


def cpu(rounds, group):
    """Processor microseconds for each answer."""
    spent = [one["cpu"].get(group, 0) / one["answers"] * 1e6 for one in rounds]
    return f"{statistics.median(spent):.0f} µs"


def received(rounds):
    rows = []
    for name, turns in rounds.items():
        rates = [turn["per_second"] for turn in turns]
        rows.append([
            TITLES[name], f"{statistics.median(rates):,.0f}", f"{min(rates):,.0f} – {max(rates):,.0f}",
            *(ms(middle(turns, lambda turn: turn[key])) for key in ("p50_us", "p99_us", "p999_us")),
            f"{sum(turn['not_2xx'] + turn['broken'] for turn in turns)}",
            f"{sum(turn['rows'] for turn in turns):,} / {sum(turn['answers_2xx'] for turn in turns):,}",
            *(cpu(turns, group) for group in ("receiver", "postgres", "redis")),
            f"{max(turn['foreign_share'] for turn in turns):.0%}",
        ])
    heads = ["", "answers/s", "slowest – fastest round", "p50", "p99", "p99.9", "not 2xx", "rows / answers",
             "CPU receiver", "CPU PostgreSQL", "CPU Redis", "others' CPU, most"]
    return table(heads, rows)


def applied(applies):
    rows = [
        [TITLES[name], f"{middle(turns, lambda turn: turn['per_second']):,.0f}",
         " · ".join(f"{turn['per_second']:,.0f}" for turn in turns), f"{sum(turn['events'] for turn in turns):,}"]
        for name, turns in applies.items()
    ]
    return table(["", "events applied/s", "each time", "events in all"], rows)


def together(beside_work):
    rows = [
        [TITLES[name], f"{one['per_second']:,.0f}", ms(one["p50_us"]), ms(one["p99_us"]),
         f"{one['applied'] / one['seconds']:,.0f}"]
        for name, one in beside_work.items()
    ]
    return table(["", "answers/s", "p50", "p99", "applied/s meanwhile"], rows)


def goals(results):
    """What was promised, what it is, and whether that is enough."""
    rounds, lines = results["rounds"], []

    def rate(name):
        return middle(rounds[name], lambda turn: turn["per_second"])

    def line(words, found, goal, good, form):
        lines.append([words, form(found), form(goal), "yes" if good else "**no**"])

    def times(value):
        return f"{value:.2f} ×"

    if "zhilian" not in rounds:
        return ""
    for name, least in (("fastify", 2.5), ("pgbench", 2.0)):
        if name in rounds:
            ratio = rate("zhilian") / rate(name)
            line(f"answers/s beside {TITLES[name]}", ratio, least, ratio >= least, times)
    if "fastapi" in rounds:
        lines.append([f"answers/s beside {TITLES['fastapi']}", times(rate("zhilian") / rate("fastapi")), "", ""])
    p99 = middle(rounds["zhilian"], lambda turn: turn["p99_us"])
    line("p99 at 64 connections, at most", p99, 10_000, p99 <= 10_000, ms)
    if "zhilian" in results.get("applies", {}) and "fastify" in rounds:
        ratio = middle(results["applies"]["zhilian"], lambda turn: turn["per_second"]) / rate("fastify")
        line(f"events applied/s beside answers/s of {TITLES['fastify']}", ratio, 1.5, ratio >= 1.5, times)
    if "beside_pull" in results:
        slow = results["beside_pull"]["p999_us"]
        line("p99.9 beside a pull of 100,000 records, at most", slow, 300_000, slow < 300_000, ms)
    return table(["", "measured", "goal", "reached"], lines)


def text(results):
    facts, options = results["machine"], results["options"]
    parts = [
        f"{facts['at']} · {facts['machine']} · {facts['postgres']} · a durable write of 8 KB takes {facts['write_ms']:.2f} ms",
        f"64 connections, {options['rounds']} rounds of {options['seconds']} s each in turn; medians",
        received(results["rounds"]),
    ]
    if results.get("applies"):
        parts += ["From the inbox to `pos_transactions`, nobody posting:", applied(results["applies"])]
    if results.get("beside_work"):
        parts += ["Posting while workers apply what comes in:", together(results["beside_work"])]
    if pull := results.get("beside_pull"):
        parts.append(
            f"Posting beside pulls of 100,000 records ({pull['pulls']} begun, {pull['pulled']:,} records stored in "
            f"{pull['seconds']:.0f} s): {pull['per_second']:,.0f} answers/s, p50 {ms(pull['p50_us'])}, "
            f"p99 {ms(pull['p99_us'])}, p99.9 {ms(pull['p999_us'])}, longest {ms(pull['max_us'])}, "
            f"{pull['not_2xx'] + pull['broken']} not 2xx")
    parts.append(goals(results))
    return "\n\n".join(part for part in parts if part)
