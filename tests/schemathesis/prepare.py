"""Gets a started service ready to be asked, for scripts/contract.

    python prepare.py ADDRESS FOLDER

Signs in as `admin` (password in ZHILIAN_ADMIN_PASSWORD) and prints the token. Writes the service's own
document to FOLDER/openapi.json, with two things left out:

- the answer `default` of each operation: with it every status would count as documented;
- the largest lengths: texts of thousands of signs take Hypothesis minutes to make.
"""

import json
import os
import sys
import urllib.request

METHODS = {"get", "put", "post", "delete", "patch", "head", "options"}
LENGTH_MAX = 500


def ask(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


def without_lengths(value):
    if isinstance(value, list):
        return [without_lengths(item) for item in value]
    if not isinstance(value, dict):
        return value
    is_long = isinstance(value.get("maxLength"), int) and value["maxLength"] > LENGTH_MAX
    return {key: without_lengths(item) for key, item in value.items() if not (is_long and key == "maxLength")}


def main(address, folder):
    document = ask(f"{address}/api/v1/openapi.json")
    for methods in document["paths"].values():
        for method, operation in methods.items():
            if method in METHODS:
                operation["responses"].pop("default", None)
    with open(os.path.join(folder, "openapi.json"), "w", encoding="utf-8") as file:
        json.dump(without_lengths(document), file, ensure_ascii=False)
    credentials = {"username": "admin", "password": os.environ["ZHILIAN_ADMIN_PASSWORD"]}
    print(ask(f"{address}/api/v1/auth/login", credentials)["access_token"])


main(*sys.argv[1:])
