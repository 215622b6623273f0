"""The durable record: journal, history and holds in one SQLite file.

What a call has returned from is on disk. Records are replayed, never interpreted any further.
"""
