"""The words of the three specifications: values, grammar and codecs, with no input or output.

Rules of this room:

1. Every value is frozen. A changed value is a new one (`dataclasses.replace`).
2. What is parsed or decoded is valid or not there; what code makes of fields is held to their types by type checkers.
3. Unknown properties survive `decode` → `encode`; the received bytes remain the truth all the same.
4. An error names the property (`layers[2].digest`), what was found, and what is allowed.
"""
