"""The Open Container Initiative's whole system in Python: images, registries and containers."""
