"""Parts for tests, argosy's own and those of its users: random images and the contract every place must meet.

Nothing here needs pytest to be imported; `contract` uses plain `assert`.
"""
