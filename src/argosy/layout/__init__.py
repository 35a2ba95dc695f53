"""ON DISK: image layouts and archives as places.

store          LayoutStore, an OCI image layout directory   (blobs: its content; durable: locks and fsync)
view           reading a layout, in a directory or an archive   (names: tags; catalog: who refers to whom)
gc             gc and fsck of a layout
archive        OCIArchive: a layout in a tar archive   (tarindex: members of a stranger's archive)
dockerarchive  DockerArchive: what `docker save` writes
directory      Directory: the `dir:` form of skopeo
"""
