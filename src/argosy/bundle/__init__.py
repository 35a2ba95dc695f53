"""IMAGE → RUNTIME: runtime bundles made from images, packed again, written by hand, and checked.

convert, users, inside   an image's configuration as a runtime's (conversion.md); who its user is
unpack, bundle           an image as a bundle; what must be known to pack it again      (mtree: umoci's form of it)
repack                   what changed, as one more layer
generate, seccompprofile configurations made and edited
check, rules, schema, host, validate   what a runtime would say to a bundle
"""
