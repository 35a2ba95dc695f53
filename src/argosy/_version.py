"""The version, alone in a file so that the build and `argosy --version` read it without imports."""

__version__ = "0.1.0"
