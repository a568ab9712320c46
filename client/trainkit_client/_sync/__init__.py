"""The synchronous client, generated from `_async` by `client/make_sync.py`: change that one."""
