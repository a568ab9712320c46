"""The server's commands: they start the API, the workers and what they need. They import nothing else of the service."""
