"""Find the best legal layouts and the ordered steps that lead to them.

Pure and deterministic: the solver is the only library used. Every prefix of the steps leaves a
legal GPU, and no pinned instance is ever moved.
"""
