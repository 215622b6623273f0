"""A simulated NVML library that refuses what a GPU refuses.

It stands below pynvml and is loaded in the place of the driver's library, so that the code above
runs unchanged. It raises for what it does not model and is never kinder than a driver.
"""
