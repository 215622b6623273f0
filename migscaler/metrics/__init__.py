"""The metric table and its collector.

All series of a scrape come from one snapshot; what is unknown is absent, never zero. A scrape
never calls NVML.
"""
