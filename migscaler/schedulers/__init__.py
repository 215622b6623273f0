"""What runs or is about to run on an instance, and how to keep new work off it.

One adapter for each kind of scheduler: allocations, fence, refresh. Adapters do not know each
other, and no data is an answer, not an exception.
"""
