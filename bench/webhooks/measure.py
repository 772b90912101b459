"""Measures receivers of webhooks against one another: the same requests, the same tables, one machine, in turns.

Called by bench/webhooks/run, which has started PostgreSQL and Redis. What is measured, and how fairly, is
in README.md beside this file.
"""

import argparse
import json
import os
import re
import resource
import secrets
import subprocess
import sys
import time
import uuid
from pathlib import Path

import machine
import report
from contenders import HERE, Failed, FastApi, Fastify, Ours, Servers, SingleInserts, existing, free_port, say
from events import BLOCK, Events

CONNECTIONS = 64
THREADS = 2

# More events than these cannot be asked for in a second; if they are, the run is void and says so.
EVENTS_PER_SECOND_MAX = 30_000

# A pull that runs beside the answering.
PULL_RECORDS = 100_000
PULL_SYSTEMS_MAX = 40

APPLY_SECS_MAX = 180

# Files of 16 MB of PostgreSQL's log that are there beforehand: more than a turn writes.
WAL_FILES = 64

# Looking is work for the machine that is measured.
LOOK_EVERY_SECS = 0.4


class Bench:
    """The machine with everything on it."""

    def __init__(self, options):
        self.options = options
        self.servers = Servers(os.environ)
        self.scratch = Path(os.environ["BENCH_SCRATCH"])
        self.home = Path(os.environ["BENCH_HOME"])
        self.secret = secrets.token_hex(24)
        self.vendor_port = free_port()
        self.ours, self.peers, self.inserts, self.vendor = None, [], None, None
        self.events = None
        # How far each contender is in the file of events.
        self.next_block = {}

    def start(self):
        """Everybody, on tables of their own."""
        only, scratch = self.options.only, self.scratch
        self.age()
        if "zhilian" in only:
            program = existing(self.options.program, "cargo build --release")
            self.ours = Ours(self.servers, scratch, free_port(), program, self.vendor_port, self.secret)
            self.ours.start()
        system_id = self.ours.system_id if self.ours else str(uuid.uuid4())
        for kind, pool in ((Fastify, self.options.fastify_pool), (FastApi, self.options.fastapi_pool)):
            if kind.name in only:
                peer = kind(self.servers, scratch, free_port(), self.home / kind.name, pool, self.secret)
                self.peers.append(peer)
                peer.start(system_id)
        if SingleInserts.name in only:
            self.inserts = SingleInserts(self.servers, scratch, 0, self.home, 0, self.secret)
            self.inserts.start(system_id)
        self.events = Events(scratch / "events", system_id, self.secret)

    def age(self):
        """A server that has run for a while has files of its log to use again; a new one makes and fills one every
        16 MB, for which everybody waits."""
        self.servers.sql("postgres", "".join(
            "SELECT pg_logical_emit_message(false, 'bench', ''); SELECT pg_switch_wal();\n" for _ in range(WAL_FILES)))
        self.servers.sql("postgres", "CHECKPOINT")

    def stop(self):
        for contender in [self.ours, *self.peers, self.inserts]:
            if contender:
                contender.stop()
        if self.vendor:
            self.vendor.terminate()
            self.vendor.wait()

    def receivers(self):
        return [contender for contender in (self.ours, *self.peers) if contender]

    def blocks(self, contender, seconds):
        """The part of the file that a turn may take."""
        first = self.next_block.setdefault(contender.name, 0)
        return first, first + int(seconds * EVENTS_PER_SECOND_MAX / BLOCK) + THREADS

    def load(self, contender, seconds, connections=CONNECTIONS):
        """Starts wrk against a contender, with events that it has not seen."""
        first, blocks = self.blocks(contender, seconds)
        self.events.ensure(blocks)
        environment = {
            **os.environ,
            "EVENTS_FILE": str(self.events.path), "EVENT_BYTES": str(self.events.request_bytes),
            "FIRST_BLOCK": str(first), "BLOCKS": str(blocks), "THREADS": str(THREADS),
        }
        command = [
            "wrk", "-t", str(THREADS), "-c", str(connections), "-d", f"{seconds}s", "--timeout", "20s",
            "-s", str(HERE / "load.lua"), f"http://127.0.0.1:{contender.port}",
        ]
        spent = children_seconds()
        wrk = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        wrk.spent_before = spent
        return wrk

    def loaded(self, contender, wrk):
        """What wrk found."""
        output, errors = wrk.communicate()
        found = re.search(r"^RESULT (.*)$", output, re.MULTILINE)
        if wrk.returncode != 0 or not found:
            raise Failed(f"wrk against {contender.name}: {output}{errors}")
        result = json.loads(found.group(1))
        if result["exhausted"]:
            raise Failed(f"wrk against {contender.name} ran out of events; raise EVENTS_PER_SECOND_MAX")
        self.next_block[contender.name] += result["blocks_taken"]
        result["answers_2xx"] = result["answers"] - result["not_2xx"]
        result["wrk_cpu"] = children_seconds() - wrk.spent_before
        result["per_second"] = result["answers_2xx"] / result["seconds"]
        return result

    def post(self, contender, seconds, connections=CONNECTIONS):
        return self.loaded(contender, self.load(contender, seconds, connections))

    def groups(self, contender):
        """The processor time of each group of processes so far."""
        return {
            "receiver": machine.cpu_seconds([process.pid for process in contender.processes]),
            "postgres": machine.cpu_seconds([self.servers.postgres_process]),
            "redis": machine.cpu_seconds([self.servers.redis_process]),
        }

    def round(self, contender):
        """One turn of one receiver, on empty tables, with proof that what was answered is there."""
        seconds = self.options.seconds
        self.quiet(contender, seconds)
        cpu, machine_before = self.groups(contender), machine.busy_seconds()
        result = self.post(contender, seconds)
        cpu_after, machine_after = self.groups(contender), machine.busy_seconds()
        result["cpu"] = {name: cpu_after[name] - spent for name, spent in cpu.items()}
        result["cpu"]["wrk"] = result.pop("wrk_cpu")
        result["foreign_share"] = foreign(result["cpu"], machine_after - machine_before)
        result["rows"], result["queued"] = contender.rows(), contender.queued()
        prove(contender, result)
        # Else the server would tidy up these tables in somebody else's turn.
        contender.empty()
        return result

    def quiet(self, contender, seconds):
        """Events are ready, tables are empty, all is on the disk: nobody pays for the turn before."""
        self.events.ensure(self.blocks(contender, seconds)[1])
        contender.empty()
        self.servers.sql("postgres", "CHECKPOINT")

    def insert_round(self):
        """One turn of pgbench."""
        self.quiet(self.inserts, 0)
        machine_before, spent = machine.busy_seconds(), children_seconds()
        cpu = machine.cpu_seconds([self.servers.postgres_process])
        request = json.dumps({"headers": {"x-webhook-signature": "0" * 64}})
        output, took = self.inserts.run(CONNECTIONS, THREADS, self.options.seconds, self.events.body, request)
        used = {
            "postgres": machine.cpu_seconds([self.servers.postgres_process]) - cpu,
            "pgbench": children_seconds() - spent,
        }
        busy = machine.busy_seconds() - machine_before
        answers = int(re.search(r"number of transactions actually processed: (\d+)", output).group(1))
        result = {
            "per_second": float(re.search(r"^tps = ([\d.]+)", output, re.MULTILINE).group(1)),
            "answers": answers, "answers_2xx": answers, "not_2xx": 0, "broken": 0, "rows": self.inserts.rows(),
            "queued": None, "p50_us": share(took, 0.5), "p99_us": share(took, 0.99), "p999_us": share(took, 0.999),
            "max_us": took[-1], "cpu": used, "foreign_share": foreign(used, busy),
        }
        if result["rows"] != answers:
            raise Failed(f"pgbench committed {answers} inserts and the table holds {result['rows']} rows")
        self.inserts.empty()
        return result

    def rounds(self):
        """Everybody in turn, several times over."""
        for contender in self.receivers():
            self.post(contender, self.options.warm_up)
        results = {}
        for number in range(self.options.rounds):
            for contender in self.receivers():
                results.setdefault(contender.name, []).append(self.round(contender))
            if self.inserts:
                results.setdefault(self.inserts.name, []).append(self.insert_round())
            say(f"round {number + 1}: " + ", ".join(
                f"{name} {rounds[-1]['per_second']:,.0f}/s" for name, rounds in results.items()))
        return results

    def apply(self, contender):
        """Fills the inbox with nobody working, then starts the workers: how fast is it empty?"""
        self.quiet(contender, self.options.fill)
        self.post(contender, self.options.fill)
        # What was in flight when wrk ended is stored a moment later.
        events = settled(contender.rows)
        self.servers.sql("postgres", "CHECKPOINT")
        before = self.groups(contender)
        began = time.time()
        workers = contender.start_workers()
        waiting = "SELECT EXISTS (SELECT 1 FROM webhook_events WHERE state = 'pending')"
        while contender.sql(waiting) == "t":
            if time.time() - began > APPLY_SECS_MAX:
                raise Failed(f"{contender.name} has not applied {events} events after {APPLY_SECS_MAX} s")
            time.sleep(LOOK_EVERY_SECS)
        # The end is told by the rows, so looking seldom costs no exactness.
        took = float(contender.sql("SELECT extract(epoch FROM max(ended_at)) FROM webhook_events")) - began
        after = self.groups(contender)
        contender.stop(workers)
        applied = int(contender.sql("SELECT count(*) FROM webhook_events WHERE state = 'applied'"))
        sales = int(contender.sql("SELECT count(*) FROM pos_transactions"))
        if not events == applied == sales:
            raise Failed(f"{contender.name}: of {events} events {applied} are applied, as {sales} transactions")
        cpu = {name: after[name] - spent for name, spent in before.items()}
        return {"events": events, "seconds": took, "per_second": events / took, "cpu": cpu}

    def applies(self):
        results = {}
        working = [contender for contender in self.receivers() if hasattr(contender, "start_workers")]
        for _ in range(self.options.applies):
            for contender in working:
                results.setdefault(contender.name, []).append(self.apply(contender))
                say(f"applied by {contender.name}: {results[contender.name][-1]['per_second']:,.0f}/s")
        return results

    def beside_work(self, contender, seconds):
        """Posting while the workers apply what comes in."""
        self.quiet(contender, seconds)
        workers = contender.start_workers()
        result = self.post(contender, seconds)
        result["rows"] = settled(contender.rows)
        result["applied"] = int(contender.sql("SELECT count(*) FROM webhook_events WHERE state = 'applied'"))
        contender.stop(workers)
        prove(contender, result)
        return result

    def beside_pull(self):
        """Posting while pulls of 100,000 new records follow one another."""
        ours = self.ours
        self.quiet(ours, self.options.pull_seconds)
        self.vendor = subprocess.Popen(["node", str(HERE / "vendor.mjs")], env={
            **os.environ, "PORT": str(self.vendor_port), "RECORDS": str(PULL_RECORDS)})
        systems = [
            ours.asked("POST", "/integrations/systems", {
                "name": f"till {number}", "type": "pos", "provider": "bench-till", "status": "active",
                "api_endpoint": f"http://127.0.0.1:{self.vendor_port}", "sync_enabled": False,
            })["id"]
            for number in range(PULL_SYSTEMS_MAX)
        ]
        workers = ours.start_workers()
        pulls = Pulls(ours, systems)
        pulls.start_next()
        pulls.wait_until_working()
        wrk = self.load(ours, self.options.pull_seconds)
        while wrk.poll() is None:
            pulls.look()
            time.sleep(LOOK_EVERY_SECS)
        result = self.loaded(ours, wrk)
        result["pulled"], result["pulls"] = pulls.records(), pulls.started
        result["rows"] = settled(ours.rows)
        ours.stop(workers)
        prove(ours, result)
        return result


class Pulls:
    """One pull after the other, each of a system that has not been pulled yet, so that each writes rows."""

    def __init__(self, ours, systems):
        self.ours, self.systems, self.started = ours, systems, 0

    def start_next(self):
        if self.started == len(self.systems):
            raise Failed("the pulls ended before the posting; raise PULL_SYSTEMS_MAX")
        self.ours.asked("POST", f"/integrations/systems/{self.systems[self.started]}/sync", {})
        self.started += 1

    def state(self):
        """Status and records of the pull that was started last."""
        system = self.systems[self.started - 1]
        found = self.ours.sql(
            f"SELECT status, records_total, coalesce(error_message, '') FROM sync_logs WHERE system_id = '{system}' AND kind = 'pull'")
        status, records, error = found.split("|", 2)
        if status in ("failed", "partial", "cancelled"):
            raise Failed(f"the pull ended `{status}`: {error}")
        return status, int(records)

    def look(self):
        if self.state()[0] == "success":
            self.start_next()

    def wait_until_working(self):
        until = time.monotonic() + 30
        while self.state()[1] == 0:
            if time.monotonic() > until:
                raise Failed("the pull has not read a record after 30 s")
            time.sleep(0.05)

    def records(self):
        ids = ", ".join(f"'{system}'" for system in self.systems)
        return int(self.ours.sql(f"SELECT count(*) FROM pos_transactions WHERE system_id IN ({ids})"))


def prove(contender, result):
    """Every answer of success has a row. What wrk cut off at its end has one too, and nobody counted it."""
    answered, rows = result["answers_2xx"], result["rows"]
    if answered == 0:
        raise Failed(f"{contender.name} answered nothing with success, and {result['not_2xx']} times with something else")
    if not answered <= rows <= answered + CONNECTIONS:
        raise Failed(f"{contender.name} answered {answered} times with success and holds {rows} rows")
    queued = result.get("queued")
    if queued is not None and not answered <= queued <= rows:
        raise Failed(f"{contender.name} answered {answered} times with success and enqueued {queued} events")


def foreign(used, busy):
    """The share of the machine's work that neither a contender nor the load has done: others were at it."""
    return max(0.0, 1 - sum(used.values()) / busy)


def children_seconds():
    """Processor time of this program's children that have ended and were waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def settled(count):
    """A count that no longer changes."""
    last = -1
    while (now := count()) != last:
        last = now
        time.sleep(0.2)
    return last


def share(ordered, part):
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))]


def parse(arguments):
    names = [kind.name for kind in (Ours, Fastify, FastApi, SingleInserts)]
    parser = argparse.ArgumentParser(prog="bench/webhooks/run")
    parser.add_argument("--program", default="target/release/zhilian-sync", help="the service's program")
    parser.add_argument("--only", type=lambda text: text.split(","), default=names, help=f"of {','.join(names)}")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=8, help="of one turn")
    parser.add_argument("--warm-up", type=int, default=3, help="seconds of posting before the first round")
    parser.add_argument("--applies", type=int, default=3, help="how often an inbox is filled and applied")
    parser.add_argument("--fill", type=int, default=5, help="seconds of posting that fill an inbox")
    parser.add_argument("--pull-seconds", type=int, default=20, help="of posting beside a pull")
    parser.add_argument("--fastify-pool", type=int, default=16, help="connections of each of its two processes")
    parser.add_argument("--fastapi-pool", type=int, default=16, help="connections of each of its two processes")
    options = parser.parse_args(arguments)
    if unknown := set(options.only) - set(names):
        parser.error(f"--only: no contender `{', '.join(unknown)}`; expected some of {', '.join(names)}")
    return options


def main():
    options = parse(sys.argv[1:])
    bench = Bench(options)
    try:
        bench.start()
        results = {"machine": report.machine_facts(bench), "options": vars(options)}
        results["rounds"] = bench.rounds()
        if options.applies:
            results["applies"] = bench.applies()
            results["beside_work"] = {
                contender.name: bench.beside_work(contender, options.seconds)
                for contender in bench.receivers() if hasattr(contender, "start_workers")
            }
        if bench.ours and options.pull_seconds:
            results["beside_pull"] = bench.beside_pull()
    except Failed as failure:
        sys.exit(f"bench/webhooks/run: {failure}")
    finally:
        bench.stop()
    (bench.home / "last.json").write_text(json.dumps(results, indent=1, default=str))
    print(report.text(results))


if __name__ == "__main__":
    main()
