"""From an image name to a running container: local store, layers as directories, root file system, network, life.

Rules of this room:

1. What is unpacked is unpacked once, under its chain id, and appears whole or not at all.
2. Every step of a start has its undoing pushed before the next begins: what fails leaves nothing.
3. One process watches one container from its creation to its end and holds a lock on its directory for as long; who
   finds the lock free has found a container nobody watches: `start` takes it up again, `prune` clears it away.
4. The runtime is a program of its own, called as any engine calls it.
"""
