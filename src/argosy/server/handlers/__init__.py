"""The handlers: one module an end-point of the distribution-spec, one function a method.

A handler is `async def handler(registry, request) -> Response`. Who asks and whether they may was settled by the
route's line in the table before it is called; only what depends on another repository or on a tag is asked here.
"""
