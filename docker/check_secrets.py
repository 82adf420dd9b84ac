"""Exit 1 with one line where a variable still holds an example's secret: nothing starts then."""

import os
import sys

EXAMPLE = "change-me"

if __name__ == "__main__":
    if found := sorted(name for name, value in os.environ.items() if EXAMPLE in value):
        sys.exit(
            f"{', '.join(found)}: {EXAMPLE!r} is an example, not a secret. Set one of your own "
            "(openssl rand -hex 24) and start again."
        )
