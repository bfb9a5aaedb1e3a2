"""What `helm test` runs: moderate one text through the Service, as an application would."""

import json
import os
import sys
import time
import urllib.error
import urllib.request

MEANINGS = {
    401: "the gateway wants an API key: test.apiKey.existingSecret names a Secret that has one",
    403: "this API key may not moderate: its roles must have `moderate`",
    503: "no policy is in force yet, or the gateway has too much to do",
}


def ask(request, seconds):
    """Return the answer; that pods have just become ready takes a moment to be known on every node."""
    give_up = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - the chart wrote it
                return json.load(response)
        except urllib.error.HTTPError:
            raise
        except OSError:
            if time.monotonic() >= give_up:
                raise
            time.sleep(0.5)


content = {"content": {"type": "text", "text": "Hello, helm."}}
headers = {"Content-Type": "application/json"}
if key := os.environ.get("API_KEY", "").strip():
    headers["Authorization"] = f"Bearer {key}"
address = os.environ["GATEWAY"] + "/v1/moderate"
request = urllib.request.Request(address, json.dumps(content).encode(), headers)  # noqa: S310 - the chart wrote it
try:
    answer = ask(request, seconds=float(os.environ.get("PATIENCE_SECONDS", "10")))
except urllib.error.HTTPError as exc:
    problem = exc.read(2000).decode(errors="replace")
    sys.exit(f"status {exc.code}: {MEANINGS.get(exc.code, 'see the log of the gateways')}\n{problem}")
except OSError as exc:
    sys.exit(f"{address} does not answer: {exc}\nGateways are ready, and in their Service, once a policy is in force.")
policies = ", ".join(f"{policy['name']} {policy['digest']}" for policy in answer["policies"])
print(f"{answer['decision']}, by {policies}")
