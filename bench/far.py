"""A way to a server that is far: every byte takes a while in each direction, and a connection twice that to begin.

python bench/far.py LISTEN TO SECONDS [RATE]

With a RATE, no connection brings more bytes a second than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

MOST = 1 << 16


async def carry(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float, rate: float
) -> None:
    """Hand on what is read, each piece so many seconds later, no faster than `rate`, and the end too."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(256)

    async def hand_on() -> None:
        data, free = b" ", 0.0
        while data:
            due, data = await pieces.get()
            await asyncio.sleep(max(0.0, max(due, free) - loop.time()))
            free = max(due, free, loop.time() - 0.1) + len(data) / rate
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    with contextlib.suppress(OSError):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hand_on())
            data = b" "
            while data:
                data = await reader.read(MOST)
                await pieces.put((loop.time() + delay, data))


async def main(listen: int, to: int, delay: float, rate: float) -> None:
    """Take connections until the process is ended."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * delay)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to)
        try:
            with contextlib.suppress(ExceptionGroup):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(carry(reader, far_writer, delay, rate))
                    tasks.create_task(carry(far_reader, writer, delay, rate))
        finally:
            writer.close()
            far_writer.close()

    server = await asyncio.start_server(connect, "127.0.0.1", listen)
    await server.serve_forever()


if __name__ == "__main__":
    numbers = [float(text) for text in (*sys.argv[3:], "inf")]
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), numbers[0], numbers[1]))
