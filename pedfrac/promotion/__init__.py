"""Champion against challenger: the gate, the audit log, the registry."""
