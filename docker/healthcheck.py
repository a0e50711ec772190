"""Whether the service in this container is ready; without curl, which the image does not have."""

import http.client
import os
import sys

connection = http.client.HTTPConnection(
    "127.0.0.1", int(os.environ.get("AIRSCENE_PORT", "8000")), timeout=3
)
try:
    connection.request("GET", "/readyz")
    response = connection.getresponse()
except OSError as error:
    sys.exit(f"no answer: {error}")
if response.status != 200:
    sys.exit(f"{response.status}: {response.read().decode(errors='replace')}")
