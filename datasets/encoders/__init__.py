"""The encoders that turn pictures and texts into features: one file (or folder) each; ``base.py`` is the contract."""
