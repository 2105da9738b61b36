"""Scripts that print and store every figure the project shows. Nothing in ``src`` knows of them.

Each is run as ``python -m benchmarks.<name>``; ``--help`` tells the rest.
"""
