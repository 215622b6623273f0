"""The loop: observe, gather, decide, execute, settle.

Every tick ends in a plan or in a hold with typed reasons. One thread acts, and one GPU plan at a
time is open on a node. The parts come in as protocols; nothing here knows which ones they are.
"""
