"""The configuration file: one YAML document, checked as a whole, compiled once.

Every finding is reported at once with its line and remedy. What comes out are immutable values
(`Policy`, `Settings`); no other part of the product knows YAML or pydantic's models. Start in
`load.py`.
"""
