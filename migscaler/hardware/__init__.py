"""Read and write the GPUs through NVML, and nothing else.

Errors of the library leave here as the product's own. What is read is returned as it was read:
nothing is decided or remembered. Only nvml_calls imports pynvml.
"""
