"""Validates the manifests in deployments/kubernetes against Kubernetes' schema.

Run by check.sh, which installs the schemas.
"""

from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

FOLDER = Path(__file__).parents[1] / "deployments/kubernetes"
KUBERNETES = "1.37"


def main() -> None:
    """Validate every document of every file, strictly: an unknown field is an error."""
    documents: list[tuple[str, Any]] = [
        (path.name, document)
        for path in sorted(FOLDER.glob("*.yaml"))
        for document in yaml.safe_load_all(path.read_text())
    ]
    for name, document in documents:
        try:
            kubernetes_validate.validate(document, KUBERNETES, strict=True)
        except kubernetes_validate.ValidationError as error:
            raise SystemExit(f"{name}: {document['kind']}: {error.message}") from None
    print(f"Kubernetes manifests: {len(documents)} valid")


if __name__ == "__main__":
    main()
