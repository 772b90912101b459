"""Batches through the API, beside the store's bulk upsert of the same records, in turns."""

import json
import statistics
import subprocess
import time

from contenders import Failed
from service import rows_of

GOAL = 0.5

WORDS = (
    "Batches of {batch_rows:,} records, {batches} of them a turn, {rounds} turns of each in alternation; medians. "
    "One caller, one batch after the other; the bulk upsert has one connection and one transaction a batch.")

ITEMS = [
    {"name": "招牌牛肉面（大碗）", "quantity": 2, "price": 32.00},
    {"name": "老坛酸菜鱼", "quantity": 1, "price": 58.00},
    {"name": "凉拌黄瓜", "quantity": 2, "price": 12.00},
]


def transaction(number):
    return {
        "transaction_id": f"P{number:08}", "order_number": f"A{number:08}", "type": "sale", "subtotal": 168.00,
        "tax": 9.51, "discount": 10.00, "total": 158.00, "payment_method": "alipay", "items": ITEMS,
        "customer": {"phone": "13900139000"}, "transaction_time": "2026-02-15T10:00:00+08:00",
    }


def order(number):
    return {
        "order_number": f"PO{number:08}", "supplier_id": "SUP-7", "supplier_name": "新鲜蔬菜供应商", "type": "purchase",
        "status": "pending", "subtotal": 1000.00, "tax": 60.00, "shipping": 50.00, "total": 1110.00, "items": ITEMS,
        "delivery": {"address": "北京市朝阳区"}, "order_date": "2026-02-15T10:00:00+08:00",
        "expected_delivery": "2026-02-17T08:00:00+08:00",
    }


def member(number):
    return {
        "member_id": f"M{number:08}", "external_id": f"CRM-{number:08}", "phone": f"138{number:08}", "name": "李四",
        "email": f"m{number}@example.com", "level": "gold", "points": 1000, "balance": 500.00,
    }


# What a kind is called, the type of its system, its records, its path, its table.
KINDS = {
    "transactions": ("pos", transaction, "/integrations/pos/{}/transactions/batch", "pos_transactions"),
    "orders": ("supplier", order, "/integrations/supplier/{}/orders/batch", "supplier_orders"),
    "members": ("member", member, "/integrations/member/{}/members/batch", "member_syncs"),
}


class Turns:
    """The turns of one kind of record; each begins with an empty table and all on the disk."""

    def __init__(self, bench, service, kind):
        self.bench, self.service, self.kind = bench, service, kind
        system_type, self.record, self.path, self.table = KINDS[kind]
        self.system = service.make_system(system_type)
        self.number = 0

    def records(self):
        """Records that nobody has seen, batch by batch, as text."""
        options, made = self.bench.options, []
        for _ in range(options.batches):
            numbers = range(self.number, self.number + options.batch_rows)
            made.append([json.dumps(self.record(number), ensure_ascii=False) for number in numbers])
            self.number += options.batch_rows
        return made

    def quiet(self):
        self.service.sql(f"TRUNCATE {self.table}")
        self.bench.servers.sql("postgres", "CHECKPOINT")

    def prove(self, expected):
        found = int(self.service.sql(f"SELECT count(*) FROM {self.table} WHERE system_id = '{self.system}'"))
        if found != expected:
            raise Failed(f"{expected} {self.kind} were answered as stored and {self.table} holds {found}")

    def through_the_api(self):
        bodies = [f'{{"records": [{", ".join(batch)}]}}'.encode() for batch in self.records()]
        self.quiet()
        connection, path = self.service.connection(), self.path.format(self.system)
        began = time.perf_counter()
        answers = [connection.post(path, body) for body in bodies]
        took = time.perf_counter() - began
        created = sum(rows_of(answer)["created"] for answer in answers)
        expected = len(bodies) * self.bench.options.batch_rows
        if created != expected:
            raise Failed(f"of {expected} {self.kind} {created} were created: {answers[0][:500].decode(errors='replace')}")
        self.prove(expected)
        return {"records": expected, "seconds": took, "per_second": expected / took, "bytes": sum(map(len, bodies))}

    def bulk_upsert(self):
        file = self.bench.scratch / "records.ndjson"
        file.write_text("".join(f"{record}\n" for batch in self.records() for record in batch))
        self.quiet()
        command = [
            self.bench.bulk_upsert, self.bench.servers.url(self.service.name), self.system, self.kind, file,
            str(self.bench.options.batch_rows)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"bulk_upsert: {done.stderr.strip()}")
        result = json.loads(done.stdout)
        self.prove(result["records"])
        return {**result, "per_second": result["records"] / result["seconds"]}


def measure(bench, say):
    service = bench.service("batches", 1)
    service.start()
    results = {}
    for kind in KINDS:
        turns = Turns(bench, service, kind)
        # Both once before they count: connections are open, statements prepared.
        turns.bulk_upsert(), turns.through_the_api()
        found = {"bulk": [], "api": []}
        for _ in range(bench.options.rounds):
            found["bulk"].append(turns.bulk_upsert())
            found["api"].append(turns.through_the_api())
        results[kind] = found
        say(f"{kind}: {middle(found['api']):,.0f}/s through the API, {middle(found['bulk']):,.0f}/s by the bulk upsert")
    service.stop()
    return results


def middle(turns):
    return statistics.median(turn["per_second"] for turn in turns)


def spread(turns):
    rates = [turn["per_second"] for turn in turns]
    return f"{min(rates):,.0f} – {max(rates):,.0f}"


def rows(results):
    heads = ["", "through the API, records/s", "slowest – fastest", "bulk upsert, records/s", "slowest – fastest", "ratio",
             "goal", "reached"]
    lines = []
    for kind, found in results.items():
        ratio = middle(found["api"]) / middle(found["bulk"])
        lines.append([
            kind, f"{middle(found['api']):,.0f}", spread(found["api"]), f"{middle(found['bulk']):,.0f}",
            spread(found["bulk"]), f"{ratio:.2f} ×", f"{GOAL:.2f} ×", "yes" if ratio >= GOAL else "**no**"])
    return heads, lines
