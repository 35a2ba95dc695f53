"""CONTAINERS: the runtime specification, alone; an OCI runtime with runc's command line.

The room imports no other room. Its hot modules import only what costs nearly nothing to import.
"""
