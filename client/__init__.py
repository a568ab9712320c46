"""The `trainkit` command line and SDK. Imports nothing of the service or the worker: it starts them and calls them."""
