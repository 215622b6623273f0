"""The values that everything else speaks in.

Immutable, validated when made, free of I/O: no clock, no logging. The catalog alone reads, from
the package's own data. Illegal layouts cannot be built.
"""
