"""The machine: devices, precision, memory and processes."""
