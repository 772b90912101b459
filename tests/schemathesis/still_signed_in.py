"""Whether the token in ZHILIAN_CONTRACT_TOKEN still counts, for scripts/contract.

    python still_signed_in.py ADDRESS
"""

import os
import sys
import urllib.error
import urllib.request

request = urllib.request.Request(
    f"{sys.argv[1]}/api/v1/auth/me",
    headers={"authorization": f"Bearer {os.environ['ZHILIAN_CONTRACT_TOKEN']}"},
)
try:
    urllib.request.urlopen(request, timeout=30).close()
except urllib.error.HTTPError as error:
    sys.exit(f"GET /auth/me answers {error.code}")
