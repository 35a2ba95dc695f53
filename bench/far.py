"""A way to a server that is far: every byte takes a while in each direction, and a connection twice that to begin.

python bench/far.py LISTEN TO SECONDS
"""

from __future__ import annotations

import asyncio
import contextlib
import sys

MOST = 1 << 18


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Hand on what is read, each piece so many seconds later, and the end too."""
    loop = asyncio.get_running_loop()
    pieces: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def hand_on() -> None:
        data = b" "
        while data:
            due, data = await pieces.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            writer.write(data)
            await writer.drain()
        writer.write_eof()

    with contextlib.suppress(OSError):
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(hand_on())
            data = b" "
            while data:
                data = await reader.read(MOST)
                pieces.put_nowait((loop.time() + delay, data))


async def main(listen: int, to: int, delay: float) -> None:
    """Take connections until the process is ended."""

    async def connect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(2 * delay)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", to)
        try:
            with contextlib.suppress(ExceptionGroup):
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(carry(reader, far_writer, delay))
                    tasks.create_task(carry(far_reader, writer, delay))
        finally:
            writer.close()
            far_writer.close()

    server = await asyncio.start_server(connect, "127.0.0.1", listen)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
