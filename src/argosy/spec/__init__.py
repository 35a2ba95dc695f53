"""The words of the three specifications: values, grammar and codecs, with no input or output.

Rules of this room:

1. Every value is frozen. A changed value is a new one (`dataclasses.replace`).
2. A value that exists is valid: constructors and `decode` refuse what the specification refuses.
3. Unknown properties survive `decode` → `encode`; the received bytes remain the truth all the same.
4. An error names the property (`layers[2].digest`), what was found, and what is allowed.
"""
