"""This service as it is measured: one process of the API, on a database of its own."""

import base64
import http.client
import json
import os
import subprocess

from contenders import Contender, Failed


class Service(Contender):
    def __init__(self, servers, scratch, port, program, name, redis_number):
        super().__init__(servers, scratch, port)
        self.name, self.program = name, program
        self.token = None
        self.environment = {
            "DATABASE_URL": servers.url(name),
            "REDIS_URL": servers.redis_url(redis_number),
            "PORT": port,
            "ZHILIAN_MASTER_KEY": base64.b64encode(os.urandom(32)).decode(),
            "ZHILIAN_ADMIN_PASSWORD": base64.b64encode(os.urandom(12)).decode(),
            "ZHILIAN__LOG__FILTER": "warn",
        }

    def start(self):
        self.servers.create(self.name)
        process = self.spawn("api", [self.program, "serve", "--role", "api"], self.environment)
        self.wait_for(process, "/health/ready", 200)
        self.token = self.sign_in("admin", self.environment["ZHILIAN_ADMIN_PASSWORD"])

    def sign_in(self, username, password):
        return self.asked("POST", "/auth/login", {"username": username, "password": password})["access_token"]

    def asked(self, method, path, body=None):
        status, answer = self.call(method, f"/api/v1{path}", body, self.token)
        if not 200 <= status < 300:
            raise Failed(f"{method} {path} was answered with {status}: {answer}")
        return answer

    def make_system(self, kind, store_id=None):
        return self.asked("POST", "/integrations/systems", {
            "name": f"{kind} of the bench", "type": kind, "provider": "generic-rest", "sync_enabled": False,
            **({"store_id": store_id} if store_id else {}),
        })["id"]

    def add_user(self, username, role, store_id):
        """Adds a user by the command line, and gives the token of a session."""
        password = base64.b64encode(os.urandom(12)).decode()
        command = [self.program, "users", "add", username, "--role", role, "--store", store_id]
        environment = {**os.environ, **{key: str(value) for key, value in self.environment.items()}}
        done = subprocess.run(command, input=password, env=environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise Failed(f"users add: {done.stderr.strip()}")
        return self.sign_in(username, password)

    def connection(self, token=None):
        return Connection(self.port, token or self.token)


class Connection:
    """One kept connection: what is measured is not its beginning."""

    def __init__(self, port, token):
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self.headers = {"Authorization": f"Bearer {token}"}

    def get(self, path):
        return self.send("GET", path, None, self.headers)

    def post(self, path, body):
        """The body is bytes, made before the clock runs."""
        return self.send("POST", path, body, {**self.headers, "Content-Type": "application/json"})

    def send(self, method, path, body, headers):
        self.http.request(method, f"/api/v1{path}", body, headers)
        answer = self.http.getresponse()
        content = answer.read()
        if answer.status != 200:
            raise Failed(f"{method} {path} was answered with {answer.status}: {content[:500].decode(errors='replace')}")
        return content


def rows_of(content):
    return json.loads(content)
