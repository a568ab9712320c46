"""Many open streams of one job, from a process of their own: `python -m benchmarks.lag URL AUTHORIZATION JOB READERS`.

Says "ready" when all are open, then waits for the job's end and prints, as JSON, seconds from each row's measurement
to its receipt (of the newest row of each piece that arrives) and how many rows came.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from datetime import datetime
from urllib.parse import urlsplit

AT, ROW = b'"at": "', b'"seq": '


async def follow(host: str, port: int, request: bytes, opened: asyncio.Semaphore, lags: list[float]) -> int:
    """Read one stream to its end; how many rows came."""
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head.split(b"\r\n", 1)[0], head
    opened.release()
    rows = 0
    while piece := await reader.read(1 << 16):
        if b"event: metric" in piece:
            now = time.time()
            rows += piece.count(ROW)
            at = piece.rfind(AT) + len(AT)
            lags.append(now - datetime.fromisoformat(piece[at : piece.index(b'"', at)].decode()).timestamp())
        if b"event: end" in piece:
            break
    writer.close()
    return rows


async def main() -> None:
    url, authorization, job, readers = sys.argv[1:]
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 65536)), hard))
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    request = (
        f"GET /v1/jobs/{job}/stream HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: {authorization}\r\n\r\n".encode()
    )
    opened, lags = asyncio.Semaphore(0), list[float]()
    tasks = []
    for _ in range(int(readers)):
        tasks.append(asyncio.create_task(follow(parts.hostname, parts.port, request, opened, lags)))
        await asyncio.sleep(0.002)
    for _ in tasks:
        await opened.acquire()
    print("ready", flush=True)
    rows = sum(await asyncio.gather(*tasks))
    print(json.dumps({"messages": rows, "lags": lags}))


if __name__ == "__main__":
    asyncio.run(main())
