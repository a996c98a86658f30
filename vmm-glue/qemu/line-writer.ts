// Sends lines on a socket. What is asked for at once goes out at once: each write of its own wakes QEMU, which a busy machine
// then runs before whoever has more to send.
import type { Writable } from 'node:stream';

/** Sends the line before anything else that waits for this turn to end. */
export function sendLine(socket: Writable, line: string): void {
  if (socket.writableCorked === 0) {
    socket.cork();
    queueMicrotask(() => socket.uncork());
  }
  socket.write(`${line}\n`);
}
