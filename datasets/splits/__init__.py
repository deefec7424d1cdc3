"""The committed split files (JSON), one for each dataset and class split."""
