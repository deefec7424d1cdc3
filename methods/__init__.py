"""The methods under comparison: one file (or folder) each; ``base.py`` is the contract and the guide."""
