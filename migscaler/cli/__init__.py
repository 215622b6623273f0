"""Commands: parse the arguments, call one thing, print its answer, return its exit code.

Nothing is decided here. This is the only place where the product and its simulation meet.
"""
