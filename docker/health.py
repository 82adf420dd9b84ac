"""Exit 0 where what this container is for works: the check behind the images' and services' health.

health.py URL            a server answers at this address
health.py --pool NAME    the Prefect server knows a worker of this pool on this host as online
health.py                the Prefect server answers and lets us in, where one is configured
"""

import base64
import json
import os
import socket
import sys
from typing import Any
from urllib.request import Request, urlopen


def ask(url: str, content: Any = None) -> Any:
    """Return what a server answers; anything but success within 5 s raises."""
    body = None if content is None else json.dumps(content).encode()
    request = Request(url, data=body, headers={"Content-Type": "application/json"})
    if credentials := os.environ.get("PREFECT_API_AUTH_STRING"):
        token = base64.b64encode(credentials.encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    with urlopen(request, timeout=5) as answer:
        return answer.read()


def main(arguments: list[str]) -> None:
    """Check what the arguments say."""
    api = os.environ.get("PREFECT_API_URL")
    if arguments[:1] == ["--pool"]:
        online = {"workers": {"status": {"any_": ["ONLINE"]}}}
        workers = json.loads(ask(f"{api}/work_pools/{arguments[1]}/workers/filter", online))
        if not any(worker["name"].startswith(f"{socket.gethostname()}-") for worker in workers):
            sys.exit(f"no worker of {arguments[1]} on this host is online")
    elif arguments:
        ask(arguments[0])
    elif api:
        ask(f"{api}/admin/version")


if __name__ == "__main__":
    main(sys.argv[1:])
