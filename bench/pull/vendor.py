"""The vendor: pages of records as files, served by nginx."""

import json
import subprocess
import time
import urllib.request

from contenders import Failed

PAGE_ROWS = 500

CONFIGURATION = """
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log;
worker_processes 1;
events {{ worker_connections 64; }}
http {{
    access_log off;
    default_type application/json;
    client_body_temp_path {folder}/temporary;
    proxy_temp_path {folder}/temporary;
    fastcgi_temp_path {folder}/temporary;
    uwsgi_temp_path {folder}/temporary;
    scgi_temp_path {folder}/temporary;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/pages;
        location ~ ^/(?<list>[a-z]+)/list$ {{ rewrite ^ /$list/$arg_page.json break; }}
    }}
}}
"""

LINES = [
    {"name": "招牌牛肉面（大碗）", "qty": 2, "price_fen": 3200},
    {"name": "老坛酸菜鱼", "qty": 1, "price_fen": 5800},
    {"name": "凉拌黄瓜", "qty": 2, "price_fen": 1200},
]


def record(number):
    """A bill with three lines, some 500 bytes; the list is in the order of change."""
    second, minute, hour = number % 60, number // 60 % 60, number // 3600 % 24
    at = f"2026-02-{1 + number // 86400 % 28:02}T{hour:02}:{minute:02}:{second:02}.000Z"
    total = 15800 + number % 997
    return {
        "sale_id": f"S{number:09}", "order_no": f"A{number:09}", "kind": "refund" if number % 50 == 0 else "sale",
        "subtotal_fen": total + 1000, "tax_fen": total * 6 // 100, "discount_fen": 1000, "total_fen": total,
        "pay": "alipay", "phone": f"139{number % 40_000:08}", "member": f"M{number % 40_000:06}", "shop": "S01",
        "sold_at": at, "updated_at": at, "lines": LINES,
    }


class Vendor:
    """nginx, and the folders of pages that it serves."""

    def __init__(self, scratch, port):
        self.folder, self.port, self.process = scratch / "vendor", port, None
        (self.folder / "temporary").mkdir(parents=True)

    def url(self, name):
        return f"http://127.0.0.1:{self.port}/{name}"

    def make(self, name, pages):
        """A list of so many pages of 500 records."""
        folder = self.folder / "pages" / name
        folder.mkdir(parents=True)
        for page in range(pages):
            numbers = range(page * PAGE_ROWS, (page + 1) * PAGE_ROWS)
            body = {"code": 0, "data": {"items": [record(number) for number in numbers], "page": page + 1, "pages": pages}}
            (folder / f"{page + 1}.json").write_text(json.dumps(body, ensure_ascii=False))
        # nginx may serve as another user.
        for path in (self.folder, self.folder / "pages", folder):
            path.chmod(0o755)
        return pages * PAGE_ROWS

    def start(self):
        configuration = self.folder / "nginx.conf"
        configuration.write_text(CONFIGURATION.format(folder=self.folder, port=self.port))
        command = ["nginx", "-p", self.folder, "-e", self.folder / "nginx.log", "-c", configuration]
        self.process = subprocess.Popen(command)
        for _ in range(200):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/pages/list?page=1", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)
        raise Failed(f"nginx does not answer: {(self.folder / 'nginx.log').read_text()[-2000:]}")

    def stop(self):
        if self.process:
            self.process.terminate()
            self.process.wait()
