"""Building the project's images, with whichever tool there is, on a machine with or without a registry.

python3 -m images               # from e2e/; `make images` does this
"""
