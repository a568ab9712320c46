"""The HTTP server's own bounds, which hold before a request reaches the application.

uvicorn limits neither the bytes of a request's head, nor the time that a client takes to send it, nor the number of
connections per client. `BoundedHttpProtocol` does: `uvicorn --http service.http_server.protocol:BoundedHttpProtocol`.
`ServerEventLoop` takes new connections at a rate that these bounds can follow.
"""
