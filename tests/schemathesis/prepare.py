"""Gets a started service ready to be asked, for scripts/contract.

    python prepare.py ADDRESS FOLDER

Signs in as `admin` (password in ZHILIAN_ADMIN_PASSWORD) and prints the token. Writes the service's own
document to FOLDER/openapi.json, without the answer `default` of each operation: with it every status
would count as documented.
"""

import json
import os
import sys
import urllib.request

METHODS = {"get", "put", "post", "delete", "patch", "head", "options"}


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def main(address, folder):
    document = ask(f"{address}/api/v1/openapi.json")
    for methods in document["paths"].values():
        for method, operation in methods.items():
            if method in METHODS:
                operation["responses"].pop("default", None)
    with open(os.path.join(folder, "openapi.json"), "w", encoding="utf-8") as file:
        json.dump(document, file, ensure_ascii=False)
    credentials = {"username": "admin", "password": os.environ["ZHILIAN_ADMIN_PASSWORD"]}
    print(ask(f"{address}/api/v1/auth/login", credentials)["access_token"])


main(*sys.argv[1:])
