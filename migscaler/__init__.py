"""Prometheus exporter and policy auto-scaler for NVIDIA MIG GPUs.

Importing any module of this package has no effect: no I/O, no threads, no registration.
"""

__version__ = "0.1.0"
