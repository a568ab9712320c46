"""The asynchronous client: the source of the synchronous one, which `client/make_sync.py` generates."""
