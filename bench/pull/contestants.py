"""Who reads the list, each as fast as it can: this service, dlt, and COPY, which only writes."""

import json
import subprocess
import sys
import time
from pathlib import Path

from contenders import Failed
from service import Service

HERE = Path(__file__).parent
ENDED = ("success", "partial", "failed", "cancelled")


class Ours(Service):
    """This service: one process that does all, beside a Redis."""

    def __init__(self, servers, scratch, port, program, name, redis_number):
        super().__init__(servers, scratch, port, program, name, redis_number)
        self.environment |= {
            "ZHILIAN__VENDORS__DIRECTORY": HERE / "manifests",
            "ZHILIAN__VENDORS__ALLOW_NETWORKS": "127.0.0.1/32",
            "ZHILIAN__VENDORS__PAGES_MAX": 10_000,
        }

    def start(self):
        self.servers.create(self.name)
        self.process = self.spawn("all", [self.program, "serve"], self.environment)
        self.wait_for(self.process, "/health/ready", 200)
        self.token = self.sign_in("admin", self.environment["ZHILIAN_ADMIN_PASSWORD"])

    def pull(self, url, records):
        """Reads the list once into an empty table; seconds from the run's start to its end."""
        self.sql("TRUNCATE pos_transactions")
        self.servers.sql("postgres", "CHECKPOINT")
        system = self.asked("POST", "/integrations/systems", {
            "name": "the list", "type": "pos", "provider": "bench-list", "api_endpoint": url, "sync_enabled": False,
        })["id"]
        run = self.asked("POST", f"/integrations/systems/{system}/sync", {})["runs"][0]
        while run["status"] not in ENDED:
            time.sleep(0.1)
            run = self.asked("GET", f"/integrations/sync-logs/{run['id']}")["run"]
        if run["status"] != "success" or run["records_success"] != records:
            raise Failed(f"the pull ended as {run['status']} with {run['records_success']} of {records}: {run['error_message']}")
        found = int(self.sql("SELECT count(*) FROM pos_transactions"))
        if found != records:
            raise Failed(f"{records} records were pulled and the table holds {found}")
        return float(run["duration_seconds"])

    def peak_mb(self):
        """The most memory that the process has held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def copy(self, records):
        """The rows that are there, once more by COPY into the same table with the same indexes."""
        file = self.scratch / "rows.copy"
        if not file.exists():
            # Written by the server, which may be another user.
            self.scratch.chmod(0o777)
            self.sql(f"COPY pos_transactions TO '{file}'")
        self.sql("TRUNCATE pos_transactions")
        self.servers.sql("postgres", "CHECKPOINT")
        began = time.perf_counter()
        self.sql(f"COPY pos_transactions FROM '{file}'")
        took = time.perf_counter() - began
        found = int(self.sql("SELECT count(*) FROM pos_transactions"))
        if found != records:
            raise Failed(f"COPY brought {found} of {records} rows")
        return took


def dlt(bench, url, records, turn):
    """dlt into a database of its own, fresh each time."""
    database = f"dlt_{turn}"
    bench.servers.create(database)
    bench.servers.sql("postgres", "CHECKPOINT")
    python = bench.home / "venv" / "bin" / "python"
    # It insists on a password, and the server on none.
    address = bench.servers.url(database).replace("postgres://postgres@", "postgresql://postgres:none@")
    command = [python, HERE / "peers" / "dlt_pull.py", url, address, bench.scratch / database]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise Failed(f"dlt: {done.stderr.strip()[-2000:]}")
    found = int(bench.servers.sql(database, "SELECT count(*) FROM pulled.sales"))
    if found != records:
        raise Failed(f"dlt brought {found} of {records} records")
    bench.servers.sql("postgres", f"DROP DATABASE {database}")
    return json.loads(done.stdout.strip().splitlines()[-1])["seconds"]


if __name__ == "__main__":
    sys.exit("bench/pull: run bench/pull/run")
