"""Where demand and calendars come from.

A reading carries the time it was taken. A source that has no data says so in its answer; it does
not raise. Sources do not know each other.
"""
