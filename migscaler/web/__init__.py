"""The page, the HTTP API, health and exposition, as one Starlette application.

Requests read the last status or leave a message for the loop; none of them calls NVML.
"""
