"""Exit 0 where a server answers: the address given, else the Prefect API with its credentials.

For a worker this means that it can reach its server and is let in, not that it has work.
"""

import base64
import os
import sys
from urllib.request import Request, urlopen


def main() -> None:
    """Ask once; any error, such as 401 or no answer within 5 s, ends in exit code 1."""
    api = os.environ.get("PREFECT_API_URL")
    if len(sys.argv) == 1 and not api:
        return  # a command that needs no server, such as a prediction
    request = Request(sys.argv[1] if len(sys.argv) > 1 else f"{api}/admin/version")
    if credentials := os.environ.get("PREFECT_API_AUTH_STRING"):
        token = base64.b64encode(credentials.encode()).decode()
        request.add_header("Authorization", f"Basic {token}")
    urlopen(request, timeout=5).close()


if __name__ == "__main__":
    main()
