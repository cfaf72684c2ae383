"""One event loop in a thread, on which name servers and origins live."""
import asyncio
import threading

loop = asyncio.new_event_loop()
threading.Thread(target=loop.run_forever, daemon=True, name="background").start()


def call(coroutine, seconds=30):
    """Runs a coroutine on the background loop and waits for its result."""
    return asyncio.run_coroutine_threadsafe(coroutine, loop).result(seconds)
