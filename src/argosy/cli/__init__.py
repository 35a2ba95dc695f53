"""The command line. The only room that prints, reads the environment or exits.

Rules of this room:

1. `table.py` lists every command; a command's module is imported when it is called, and then only what it needs.
2. Data goes to stdout and nothing else does; progress, warnings and errors go to stderr.
3. `--json` exists wherever there is data. Exit codes are those of `failure.py`, and are documented.
4. A command parses, calls the library, and prints. What could be of use to a program stands in another room.
"""
