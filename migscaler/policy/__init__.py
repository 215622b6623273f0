"""Decide, from a snapshot, demand and rules, what a node should look like now.

Pure: the time is an argument, the same input in any order gives the same decision, and nothing is
read, drawn, logged or remembered.
"""
