"""Who is measured: how each is started, where it listens, which database and which Redis it has."""

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

HERE = Path(__file__).parent

READY_SECS = 30
STOP_SECS = 20


class Failed(Exception):
    """What ends a measurement, in words."""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def existing(path, command):
    """The program at the path, or the command that makes it."""
    found = Path(path).resolve()
    if not found.exists():
        raise Failed(f"no program at `{found}`; expected one there, run: {command}")
    return found


def say(text):
    print(f"==> {text}", file=sys.stderr, flush=True)


class Servers:
    """PostgreSQL and Redis, as bench/webhooks/run has started them."""

    def __init__(self, environment):
        self.postgres_port = int(environment["BENCH_POSTGRES_PORT"])
        self.redis_port = int(environment["BENCH_REDIS_PORT"])
        self.postgres_process = int(environment["BENCH_POSTGRES_PROCESS"])
        self.redis_process = int(environment["BENCH_REDIS_PROCESS"])
        self.programs = Path(environment["BENCH_POSTGRES_PROGRAMS"])

    def url(self, database):
        return f"postgres://postgres@127.0.0.1:{self.postgres_port}/{database}"

    def redis_url(self, number):
        return f"redis://127.0.0.1:{self.redis_port}/{number}"

    def sql(self, database, text):
        """Runs statements and gives back what the last one found, as text."""
        command = [self.programs / "psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-d", self.url(database), "-f", "-"]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"psql in `{database}`: {done.stderr.strip()}")
        return done.stdout.strip()

    def redis(self, number, *words):
        command = ["redis-cli", "-h", "127.0.0.1", "-p", str(self.redis_port), "-n", str(number), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"redis-cli: {done.stderr.strip()}")
        return done.stdout.strip()

    def create(self, database):
        self.sql("postgres", f"CREATE DATABASE {database}")


class Contender:
    """A receiver with a database of its own; what it keeps in Redis is in a database of that too."""

    name = title = ""
    redis_number = 0

    def __init__(self, servers, scratch, port):
        self.servers, self.scratch, self.port = servers, scratch, port
        self.processes = []

    def spawn(self, name, command, environment, folder=None):
        """A process that is ended with `stop`; what it says goes into a file."""
        log = self.scratch / f"{self.name}-{name}.log"
        environment = {**os.environ, **{key: str(value) for key, value in environment.items()}}
        with open(log, "ab") as output:
            process = subprocess.Popen(command, env=environment, cwd=folder, stdout=output, stderr=output)
        process.log = log
        self.processes.append(process)
        return process

    def wait_for(self, process, path, status):
        """Until the process answers the path with the status."""
        until = time.monotonic() + READY_SECS
        while time.monotonic() < until:
            if process.poll() is not None:
                raise Failed(f"{self.name} ended: {process.log.read_text()[-2000:]}")
            if self.call("GET", path)[0] == status:
                return
            time.sleep(0.05)
        raise Failed(f"{self.name} is not ready after {READY_SECS} s: {process.log.read_text()[-2000:]}")

    def call(self, method, path, body=None, token=None):
        """Status and JSON of an answer; status 0 if there is none."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data, method=method)
        request.add_header("Content-Type", "application/json")
        if token:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode(errors="replace")
        except OSError:
            return 0, None

    def sql(self, text):
        return self.servers.sql(self.name, text)

    def rows(self):
        return int(self.sql("SELECT count(*) FROM webhook_events"))

    def empty(self):
        """As on the first day: no events, no records, nothing in the queue."""
        self.sql("TRUNCATE webhook_events, pos_transactions")

    def stop(self, processes=None):
        ending = list(self.processes if processes is None else processes)
        for process in ending:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        for process in ending:
            try:
                process.wait(STOP_SECS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process in self.processes:
                self.processes.remove(process)


class Ours(Contender):
    """This service: one process for the API, and one each for worker and scheduler when applying."""

    name, title, redis_number = "zhilian", "zhilian-sync", 1

    def __init__(self, servers, scratch, port, program, vendor_port, secret):
        super().__init__(servers, scratch, port)
        self.program, self.vendor_port, self.secret = program, vendor_port, secret
        self.token = self.system_id = None
        self.environment = {
            "DATABASE_URL": servers.url(self.name),
            "REDIS_URL": servers.redis_url(self.redis_number),
            "PORT": port,
            "ZHILIAN_MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
            "ZHILIAN_ADMIN_PASSWORD": base64.b64encode(os.urandom(12)).decode(),
            "ZHILIAN__VENDORS__DIRECTORY": HERE / "manifests",
            "ZHILIAN__VENDORS__ALLOW_NETWORKS": f"127.0.0.1:{vendor_port}",
            "ZHILIAN__LOG__FILTER": "warn",
        }

    def start(self):
        self.servers.create(self.name)
        process = self.spawn("api", [self.program, "serve", "--role", "api"], self.environment)
        self.wait_for(process, "/health/ready", 200)
        login = {"username": "admin", "password": self.environment["ZHILIAN_ADMIN_PASSWORD"]}
        self.token = self.asked("POST", "/auth/login", login)["access_token"]
        self.system_id = self.asked("POST", "/integrations/systems", {
            "name": "till of the bench", "type": "pos", "provider": "generic-rest", "status": "active",
            "api_endpoint": f"http://127.0.0.1:{self.vendor_port}", "api_key": "none", "sync_enabled": False,
            "webhook_secret": self.secret,
        })["id"]

    def asked(self, method, path, body=None):
        status, answer = self.call(method, f"/api/v1{path}", body, self.token)
        if not 200 <= status < 300:
            raise Failed(f"{method} {path} was answered with {status}: {answer}")
        return answer

    def start_workers(self):
        return [
            self.spawn(role, [self.program, "serve", "--role", role], self.environment)
            for role in ("worker", "scheduler")
        ]

    def queued(self):
        return None  # A doorbell holds no events.


class Peer(Contender):
    """A receiver written for this comparison, on the same tables, with the same secret."""

    def __init__(self, servers, scratch, port, home, pool, secret):
        super().__init__(servers, scratch, port)
        self.home, self.pool, self.secret = Path(home), pool, secret

    def prepare(self, system_id):
        """The service's own tables, so that both write the same row into the same indexes."""
        self.servers.create(self.name)
        for migration in sorted((HERE / "../../migrations").glob("*.sql")):
            self.sql(migration.read_text())
        self.sql(f"""
            INSERT INTO external_systems (id, name, type, provider, version, status, paused, store_map, credential_names,
                webhook_verification, config, timezone, currency, sync_enabled, consecutive_failures, created_at, updated_at)
            VALUES ('{system_id}', 'till of the bench', 'pos', 'generic-rest', 1, 'active', false, '{{}}', '{{}}',
                'signature', '{{}}', 'Asia/Shanghai', 'CNY', false, 0, now(), now())
        """)
        self.environment = {
            "DATABASE_URL": self.servers.url(self.name),
            "REDIS_URL": self.servers.redis_url(self.redis_number),
            "PORT": self.port,
            "POOL": self.pool,
            "SYSTEM_ID": system_id,
            "WEBHOOK_SECRET": self.secret,
            "NODE_ENV": "production",
        }

    def empty(self):
        super().empty()
        self.servers.redis(self.redis_number, "FLUSHDB")


class Fastify(Peer):
    name, title, redis_number = "fastify", "Fastify + pg + BullMQ", 2

    def start(self, system_id):
        self.prepare(system_id)
        process = self.spawn("receiver", ["node", "receiver.mjs"], self.environment, self.home)
        self.wait_for(process, "/", 404)

    def start_workers(self):
        return [self.spawn("worker", ["node", "worker.mjs"], self.environment, self.home)]

    def queued(self):
        return int(self.servers.redis(self.redis_number, "LLEN", "bull:events:wait"))


class FastApi(Peer):
    name, title, redis_number = "fastapi", "FastAPI + asyncpg + Redis", 3

    def start(self, system_id):
        self.prepare(system_id)
        command = [
            self.home / "venv/bin/uvicorn", "receiver:app", "--workers", "2", "--host", "127.0.0.1", "--port",
            str(self.port), "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning",
        ]
        process = self.spawn("receiver", command, self.environment, self.home)
        self.wait_for(process, "/", 404)

    def queued(self):
        return int(self.servers.redis(self.redis_number, "LLEN", "events"))


class SingleInserts(Peer):
    """pgbench: the same row, one INSERT and one commit each, and nothing else."""

    name, title = "pgbench", "pgbench, single inserts"

    def start(self, system_id):
        self.prepare(system_id)
        self.system_id = system_id

    def run(self, clients, threads, seconds, body, request):
        """What pgbench says, and how long each transaction took in microseconds."""
        log = self.scratch / "pgbench-log"
        for old in self.scratch.glob("pgbench-log*"):
            old.unlink()
        command = [
            self.servers.programs / "pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", str(threads),
            "-T", str(seconds), "-f", HERE / "insert.sql", "-D", f"system={self.system_id}",
            "-D", f"body=\\x{body.hex()}", "-D", f"request={request}",
            "-l", f"--log-prefix={log}", "--sampling-rate=0.2", self.servers.url(self.name),
        ]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.processes.append(process)
        output, errors = process.communicate()
        self.processes.remove(process)
        if process.returncode != 0:
            raise Failed(f"pgbench: {errors.strip()}")
        took = sorted(
            int(line.split()[2]) for part in self.scratch.glob("pgbench-log*") for line in part.read_text().splitlines()
        )
        return output, took
