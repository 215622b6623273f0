"""Wiring: configuration in, running daemon out.

Reads and validates configuration, builds the parts and hands them to each other, runs the jobs and
speaks to systemd. It takes no decision about a GPU and never imports the simulation.
"""
