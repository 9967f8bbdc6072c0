"""A signal handler that wakes the thread it interrupts."""

import os
import signal
import threading
import time

from gateway.machine.wake import Wake


def test_a_wake_before_the_wait_is_not_lost() -> None:
    wake = Wake()
    wake.set()
    began = time.monotonic()
    wake.wait(60)
    assert time.monotonic() - began < 30
    wake.close()


def test_it_wakes_the_thread_that_the_handler_interrupts_however_many_signals_come() -> None:
    wake, seen = Wake(), [0]

    def handler(*_: object) -> None:
        seen[0] += 1
        wake.set()

    before = signal.signal(signal.SIGUSR2, handler)
    stop = threading.Event()

    def send() -> None:
        while not stop.is_set():
            os.kill(os.getpid(), signal.SIGUSR2)

    sending = threading.Thread(target=send)
    sending.start()
    try:
        for _ in range(500):
            wake.wait(60)
    finally:
        stop.set()
        sending.join()
        signal.signal(signal.SIGUSR2, before)
        wake.close()
    assert seen[0]
