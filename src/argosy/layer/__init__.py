"""CHANGESETS: tar streams to file systems and back.

tarstream, tarwriter   tar archives read and written, byte for byte   (tarheader, tarsparse: their fields)
compression            none, gzip, zstd; digests of both sides        (pump: made ahead in a thread)
entry                  one member of a changeset; whiteouts; limits
rootfs                 RootFS, the only code that writes below a root
apply, place, metadata changeset → root                               (resolve: paths that cannot escape)
snapshot, diff         root → changeset
staged                 a tree that goes into a root as a whole
tree                   changesets laid over each other in memory
idmap, rootless        whose files these are
"""
