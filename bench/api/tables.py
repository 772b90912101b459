"""Rows for the pages: written by the database itself, as many as are wanted, alike in every size.

Row `g` of a table is the same whatever the table's size. Stores, states and types are spread by a hash, so
that no two filters go together; a rare one still fills a page of the small table, or neither's.
"""

import base64
import uuid
from datetime import datetime, timezone

from contenders import Failed

STORES = 200
STORE = "S7"
SYSTEM_TYPES = ("pos", "supplier", "member", "reservation")

# Row `g` took place so many milliseconds after 1970: one a second.
EPOCH_MS = 1_700_000_000_000


def hashed(place, modulo):
    """A number that depends on the row, another for each `place` (0 to 3)."""
    return f"(('x' || substr(md5(g::text), {1 + 8 * place}, 7))::bit(28)::int % {modulo})"


AT = f"to_timestamp(({EPOCH_MS} + g * 1000) / 1000.0)"
# A version 7 of the row's time, as the service makes them.
ID = (f"(lpad(to_hex({EPOCH_MS} + g * 1000), 12, '0') || '7' || substr(md5(g::text), 1, 3) || '8' || "
      "substr(md5(g::text), 4, 15))::uuid")

# What all records have. One in two hundred is of the store that is asked for, one in two hundred is not in step.
COMMON = {
    "id": ID,
    "store_id": f"'S' || {hashed(0, STORES)}",
    "sync_status": f"CASE WHEN {hashed(1, 200)} = 0 THEN 'failed' ELSE 'success' END",
    "version_at": AT, "observed_at": AT, "content_hash": "decode(md5(g::text), 'hex')", "raw": "'{}'",
    "created_at": AT, "updated_at": AT,
}
MONEY = {"currency": "'CNY'", "total": "29680"}
ITEMS = """'[{"name":"招牌牛肉面（大碗）","quantity":2,"price":32.00},{"name":"老坛酸菜鱼","quantity":1,"price":58.00}]'"""

# The columns of each table, as expressions of the row's number `g` and of the number of rows `n`; `system`
# stands for the id of the system of that type.
TABLES = {
    "pos_transactions": ("pos", {
        **COMMON, **MONEY, "pos_transaction_id": "'P' || g", "pos_order_number": "'A' || g",
        "transaction_type": f"CASE WHEN {hashed(2, 100)} = 0 THEN 'void' WHEN {hashed(2, 100)} < 10 THEN 'refund' ELSE 'sale' END",
        "subtotal": "28000", "tax": "1680", "discount": "0", "payment_method": "'wechat'", "items": ITEMS,
        "customer_phone": "'138' || lpad((g % (n / 25))::text, 8, '0')", "transaction_time": AT,
    }),
    "supplier_orders": ("supplier", {
        **COMMON, **MONEY, "order_number": "'PO' || g", "external_order_id": "'X' || g", "supplier_id": "'SUP-7'",
        "supplier_name": "'新鲜蔬菜供应商'",
        "order_type": f"CASE WHEN {hashed(2, 100)} = 0 THEN 'return' ELSE 'purchase' END",
        "status": f"CASE WHEN {hashed(3, 200)} = 0 THEN 'shipped' ELSE 'delivered' END",
        "subtotal": "28000", "tax": "1680", "shipping": "0", "items": ITEMS, "order_date": AT,
    }),
    "member_syncs": ("member", {
        **COMMON, "member_id": "'M' || g", "external_member_id": "'C' || g",
        "phone": "'138' || lpad((g % (n / 25))::text, 8, '0')", "name": "'李四'", "email": "'m' || g || '@example.com'",
        "level": f"CASE WHEN {hashed(2, 200)} = 0 THEN 'gold' ELSE 'silver' END",
        "points": "1000", "balance": "50000", "currency": "'CNY'",
    }),
    "external_records": ("reservation", {
        **COMMON, "stream": "'reservations'", "external_id": "'R' || g", "number": "'N' || g",
        "status": f"CASE WHEN {hashed(3, 200)} = 0 THEN 'no_show' ELSE 'completed' END",
        "customer_phone": "'138' || lpad((g % (n / 25))::text, 8, '0')", "currency": "'CNY'", "amount": "10000",
        "occurred_at": AT, "data": """'{"customer_name":"王五","customer_count":4,"reservation_time":"18:00-20:00"}'""",
    }),
}

# The lists and, for each of their filters, a value that some rows have.
LISTS = {
    "/integrations/pos/transactions": ("pos", "pos_transactions", {
        "type": "void", "order_number": "A{middle}", "phone": "138{phone:08}"}),
    "/integrations/supplier/orders": ("supplier", "supplier_orders", {
        "type": "return", "status": "shipped", "order_number": "PO{middle}"}),
    "/integrations/member/members": ("member", "member_syncs", {
        "level": "gold", "phone": "138{phone:08}", "member_id": "M{middle}"}),
    "/integrations/reservation/reservations": ("reservation", "external_records", {
        "status": "no_show", "phone": "138{phone:08}", "reservation_number": "N{middle}"}),
    "/integrations/records": ("reservation", "external_records", {
        "stream": "reservations", "status": "no_show", "number": "N{middle}"}),
}


def values(path, systems, rows):
    """A value for every filter of a list."""
    system, _, own = LISTS[path]
    middle = rows // 2
    places = {"middle": middle, "phone": middle % (rows // 25)}
    return {
        "store_id": STORE, "system_id": systems[system], "sync_status": "failed",
        "from": moment(middle), "to": moment(middle + rows // 10),
        **{name: value.format(**places) for name, value in own.items()},
    }


def moment(row):
    return datetime.fromtimestamp((EPOCH_MS + row * 1000) / 1000, timezone.utc).isoformat().replace("+00:00", "Z")


def cursor(rows):
    """As src/api/page.rs writes it: the milliseconds and the id of the row after which the page begins."""
    at = EPOCH_MS + rows // 2 * 1000
    return base64.urlsafe_b64encode(at.to_bytes(8, "big") + uuid.UUID(int=0).bytes).decode()


def fill(service, table, systems, rows):
    """Inserts the rows with the indexes taken away and made again, then lets the server look at them."""
    system_type, columns = TABLES[table]
    known = set(service.sql(f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'").split())
    if unknown := set(columns) - known:
        raise Failed(f"{table} has no column {', '.join(sorted(unknown))}; bench/api/tables.py is older than the schema")
    indexes = service.sql(f"""
        SELECT indexname || '|' || indexdef FROM pg_indexes i WHERE tablename = '{table}' AND NOT EXISTS (
            SELECT 1 FROM pg_constraint c WHERE c.conname = i.indexname)""").splitlines()
    statements = [f"DROP INDEX {index.partition('|')[0]};" for index in indexes]
    names, expressions = ", ".join(columns), ", ".join(columns.values())
    statements.append(f"""
        INSERT INTO {table} (system_id, {names})
        SELECT '{systems[system_type]}', {expressions} FROM generate_series(1, {rows}) AS g, (SELECT {rows} AS n) AS size;""")
    statements += [f"{index.partition('|')[2]};" for index in indexes]
    service.sql("\n".join(statements))
    service.sql(f"VACUUM ANALYZE {table}")
