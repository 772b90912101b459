"""Signed events for load.lua: a file of records of one size, each a whole HTTP request with a body of
about one kilobyte and a true signature over it. It grows on demand; no event is in it twice."""

import hmac
import json
import os
from datetime import datetime, timedelta, timezone

# As in load.lua.
BLOCK = 64

BODY_BYTES = 1024

# What stands for what differs from event to event, as wide as what takes its place.
NUMBER = b"########"
TIME = b"@@@@-@@-@@T@@:@@:@@.@@@"

SALE = {
    "event": "transaction.created",
    "event_id": f"evt-{NUMBER.decode()}",
    "data": {
        "transaction_id": f"S{NUMBER.decode()}",
        "order_number": f"A{NUMBER.decode()}",
        "type": "sale",
        "subtotal": 168.0,
        "tax": 9.51,
        "discount": 10.0,
        "total": 158.0,
        "payment_method": "wechat",
        "items": [
            {"item_id": "2001", "name": "招牌牛肉面（大碗）", "quantity": 2, "unit_price": 32.0, "subtotal": 64.0},
            {"item_id": "2014", "name": "老坛酸菜鱼", "quantity": 1, "unit_price": 58.0, "subtotal": 58.0},
            {"item_id": "2033", "name": "凉拌黄瓜", "quantity": 2, "unit_price": 12.0, "subtotal": 24.0},
            {"item_id": "2101", "name": "桂花酸梅汤", "quantity": 2, "unit_price": 11.0, "subtotal": 22.0},
        ],
        "customer": {"member_id": f"M{NUMBER.decode()}", "name": "王女士", "phone": "13800138000"},
        "table_number": "B12",
        "cashier": "收银台 2",
        "transaction_time": f"{TIME.decode()}Z",
        "note": "",
    },
}


class Events:
    """The file, and how far it has been written."""

    def __init__(self, path, system_id, secret):
        self.path, self.secret = path, secret.encode()
        self.blocks = 0
        self.began = datetime.now(timezone.utc) - timedelta(hours=6)
        self.body = padded_body()
        self.head = (
            f"POST /api/v1/integrations/webhooks/pos/{system_id} HTTP/1.1\r\n"
            "Host: 127.0.0.1\r\n"
            "Content-Type: application/json\r\n"
            f"Content-Length: {len(self.body)}\r\n"
            "X-Webhook-Signature: "
        ).encode()
        self.request_bytes = len(self.one(0))

    def one(self, number):
        """The request of one event."""
        at = self.began + timedelta(milliseconds=number)
        time = at.isoformat(timespec="milliseconds")[:23].encode()
        body = self.body.replace(NUMBER, b"%08d" % number).replace(TIME, time)
        signature = hmac.digest(self.secret, body, "sha256").hex().encode()
        return b"%b%b\r\n\r\n%b" % (self.head, signature, body)

    def ensure(self, blocks):
        """Writes on until there are so many blocks."""
        if blocks <= self.blocks:
            return
        with open(self.path, "ab", buffering=1 << 20) as file:
            for number in range(self.blocks * BLOCK, blocks * BLOCK):
                file.write(self.one(number))
            file.flush()
            os.fsync(file.fileno())
        self.blocks = blocks


def padded_body():
    bare = len(encode(SALE))
    padded = {**SALE, "data": {**SALE["data"], "note": "x" * (BODY_BYTES - bare)}}
    body = encode(padded)
    assert len(body) == BODY_BYTES, len(body)
    return body


def encode(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
