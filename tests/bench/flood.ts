// A client that sends as much as a backend takes: writes without a reply, a socket's fill at a time. Run by bystander.ts;
// prints a line when it is under way, and goes on until it is ended.
import { connectUnix } from '../../protocol/unix/fd-socket.ts';
import { ErrnoNumber } from '../../protocol/unix/libc.ts';
import { PollSet } from '../../protocol/unix/poll-set.ts';
import { SocketBuffer } from '../../protocol/unix/socket-buffer.ts';
import { Command, RegionIndex } from '../../protocol/vfio-user/commands.ts';
import { encodeFrame } from '../../protocol/vfio-user/framing.ts';
import { HeaderFlag, RegionAccess } from '../../protocol/vfio-user/messages.ts';
import { encodeVersion } from '../../protocol/vfio-user/version.ts';

const MESSAGES = 2000;
/** A loopback register that remembers what is written, and does nothing. */
const SCRATCH = 12n;

const access = RegionAccess.encode({ offset: SCRATCH, region: RegionIndex.bar0, count: 4 });
const write = encodeFrame(
  { id: 2, command: Command.regionWrite, flags: HeaderFlag.noReply },
  Uint8Array.from([...access, 1, 2, 3, 4]),
);
const hello = encodeFrame({ id: 1, command: Command.version, flags: 0 }, encodeVersion(0, 1, {}));

const fd = connectUnix(process.argv[2] ?? '');
const writable = new PollSet();
writable.set(fd, { writable: true });
const buffer = new SocketBuffer(MESSAGES * write.length);

buffer.data.set(hello);
buffer.send(fd, 0, hello.length);
for (let message = 0; message < MESSAGES; message++) {
  buffer.data.set(write, message * write.length);
}
process.stdout.write('flooding\n');
for (let at = 0; ; ) {
  const sent = buffer.send(fd, at, buffer.data.length - at);
  if (sent === -ErrnoNumber.EAGAIN) {
    writable.wait(-1);
  } else if (sent < 0) {
    break;
  } else {
    at = (at + sent) % buffer.data.length;
  }
}
