"""The datasets: one file each; ``base.py`` is the contract."""
