"""What all tests share: every Prefect database of a test lies in a temporary folder."""

import os
import tempfile

# before Prefect is imported, since it reads its settings once
os.environ["PREFECT_HOME"] = tempfile.mkdtemp(prefix="pedfrac-prefect-")
os.environ["PREFECT_SERVER_ANALYTICS_ENABLED"] = "false"
