import { constants } from 'node:buffer';
import { spawnSync } from 'node:child_process';
import { ftruncateSync, readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { createEventFd } from '../../../../protocol/unix/eventfd.ts';
import { closeFd, ErrnoNumber, fcntl } from '../../../../protocol/unix/libc.ts';
import {
  createMemfd,
  dupFd,
  fileIdentity,
  fileSize,
  mapMemory,
  readAt,
  unmapMemory,
  writeAt,
} from '../../../../protocol/unix/memory.ts';
import { builtModule } from './built-module.ts';
import { leaveNoFdOpen } from './open-fds.ts';

leaveNoFdOpen();

function mappedFiles(name: string): number {
  return readFileSync('/proc/self/maps', 'utf8').split(`memfd:${name}`).length - 1;
}

describe('createMemfd', () => {
  it('makes zeros of the size asked, under its name', () => {
    const fd = createMemfd('zeros', 8192);
    const bytes = new Uint8Array(8192).fill(1);
    expect(fileSize(fd)).toBe(8192);
    expect(readAt(fd, bytes, 0)).toBe(8192);
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    expect(fcntl(fd, 1, 0)).toBe(1);
    closeFd(fd);
  });

  it('cannot be shrunk or grown by a peer that has the fd', () => {
    const fd = createMemfd('sealed', 8192);
    expect(() => ftruncateSync(fd, 4096)).toThrow('EPERM');
    expect(() => ftruncateSync(fd, 16384)).toThrow('EPERM');
    expect(writeAt(fd, new Uint8Array(16), 8192)).toBe(-ErrnoNumber.EPERM);
    closeFd(fd);
  });

  it('can change its size where that is asked for', () => {
    const fd = createMemfd('open', 8192, { resizable: true });
    ftruncateSync(fd, 4096);
    expect(fileSize(fd)).toBe(4096);
    closeFd(fd);
  });
});

describe('readAt and writeAt', () => {
  it('come short at the end of a file that shrank, and give 0 beyond it', () => {
    const fd = createMemfd('guest', 8192, { resizable: true });
    const bytes = new Uint8Array(4096);
    expect(readAt(fd, bytes, 4096)).toBe(4096);
    ftruncateSync(fd, 5000);
    expect(readAt(fd, bytes, 4096)).toBe(904);
    expect(readAt(fd, bytes, 5000)).toBe(0);
    closeFd(fd);
  });

  it('reach beyond 4 GiB', () => {
    const fd = createMemfd('large', 2 ** 33);
    expect(writeAt(fd, Uint8Array.from([7, 8]), 2 ** 33 - 2)).toBe(2);
    const bytes = new Uint8Array(4);
    expect(readAt(fd, bytes, 2 ** 33 - 2)).toBe(2);
    expect([...bytes]).toEqual([7, 8, 0, 0]);
    closeFd(fd);
  });

  it('give the negative errno', () => {
    expect(readAt(9999, new Uint8Array(1), 0)).toBe(-ErrnoNumber.EBADF);
    expect(writeAt(9999, new Uint8Array(1), 0)).toBe(-ErrnoNumber.EBADF);
    const fd = createMemfd('file', 4096);
    expect(readAt(fd, new Uint8Array(1), -1)).toBe(-ErrnoNumber.EINVAL);
    closeFd(fd);
  });
});

describe('fileIdentity', () => {
  it('is one for all fds of a file and different for different files', () => {
    const a = createMemfd('same', 4096);
    const b = createMemfd('same', 4096);
    const copy = dupFd(a);
    expect(fileIdentity(copy)).toBe(fileIdentity(a));
    expect(fileIdentity(b)).not.toBe(fileIdentity(a));
    for (const fd of [a, b, copy]) {
      closeFd(fd);
    }
  });
});

describe('mapMemory', () => {
  it('shows writes through the fd and back', () => {
    const fd = createMemfd('shared', 8192);
    const mapping = mapMemory({ fd, offset: 4096, length: 4096, write: true });
    expect(mapping).toMatchObject({ length: 4096 });
    writeAt(fd, Uint8Array.from([1, 2]), 4096);
    expect([...mapping.bytes.subarray(0, 2)]).toEqual([1, 2]);
    mapping.bytes[4095] = 9;
    const last = new Uint8Array(1);
    readAt(fd, last, 8191);
    expect(last[0]).toBe(9);
    unmapMemory(mapping);
    closeFd(fd);
  });

  it('outlives its fd', () => {
    const fd = createMemfd('kept', 4096);
    writeAt(fd, Uint8Array.from([5]), 0);
    const mapping = mapMemory({ fd, offset: 0, length: 4096, write: false });
    closeFd(fd);
    expect(mapping.bytes[0]).toBe(5);
    unmapMemory(mapping);
  });

  it('throws what the kernel says', () => {
    const fd = createMemfd('file', 8192);
    expect(() => mapMemory({ fd, offset: 1, length: 4096, write: false })).toThrow('EINVAL');
    expect(() => mapMemory({ fd: 9999, offset: 0, length: 4096, write: false })).toThrow('EBADF');
    const event = createEventFd();
    expect(() => mapMemory({ fd: event, offset: 0, length: 4096, write: false })).toThrow('ENODEV');
    closeFd(event);
    closeFd(fd);
  });

  it('refuses a length that Node cannot view, which would end the process', () => {
    const fd = createMemfd('huge', 4096);
    const length = constants.MAX_LENGTH + 4096;
    expect(() => mapMemory({ fd, offset: 0, length, write: false })).toThrow('map it in parts');
    closeFd(fd);
  });
});

describe('unmapMemory', () => {
  it('lets the file go at once and leaves zeros that can be touched', () => {
    const fd = createMemfd('retired', 8192);
    writeAt(fd, new Uint8Array(8192).fill(7), 0);
    const mapping = mapMemory({ fd, offset: 0, length: 8192, write: true });
    const view = new DataView(mapping.bytes.buffer, 4096);
    expect(mappedFiles('retired')).toBe(1);
    unmapMemory(mapping);
    expect(mappedFiles('retired')).toBe(0);
    expect(view.getUint8(0)).toBe(0);
    mapping.bytes.fill(1);
    const byte = new Uint8Array(1);
    readAt(fd, byte, 0);
    expect(byte[0]).toBe(7);
    closeFd(fd);
  });

  it('makes the pages of a file touchable that shrank under a read-only mapping', () => {
    const fd = createMemfd('shrunk', 8192, { resizable: true });
    const mapping = mapMemory({ fd, offset: 0, length: 8192, write: false });
    ftruncateSync(fd, 0);
    unmapMemory(mapping);
    expect(mapping.bytes[8191]).toBe(0);
    mapping.bytes[8191] = 1;
    closeFd(fd);
  });

  it('may be called twice, and then leaves whatever is mapped there since', () => {
    const fd = createMemfd('twice', 4096);
    const mapping = mapMemory({ fd, offset: 0, length: 4096, write: true });
    unmapMemory(mapping);
    mapping.bytes[0] = 3;
    unmapMemory(mapping);
    expect(mapping.bytes[0]).toBe(3);
    closeFd(fd);
  });

  it('gives the addresses back once nobody refers to them', () => {
    const script = `
      import { readFileSync } from 'node:fs';
      import { createMemfd, mapMemory, unmapMemory } from ${JSON.stringify(builtModule('memory'))};
      const size = () => Number(/VmSize:\\s+(\\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))[1]);
      const fd = createMemfd('many', 1 << 26);
      const before = size();
      for (let i = 0; i < 64; i++) {
        unmapMemory(mapMemory({ fd, offset: 0, length: 1 << 26, write: true }));
      }
      const held = size() - before;
      for (let i = 0; i < 50 && size() - before > held / 8; i++) {
        globalThis.gc();
        await new Promise((resolve) => setImmediate(resolve));
      }
      console.log(size() - before < held / 8 ? 'given back' : 'kept ' + (size() - before));
    `;
    const args = ['--expose-gc', '--input-type=module', '-e', script];
    const child = spawnSync(process.execPath, args, { encoding: 'utf8' });
    expect(child).toMatchObject({ status: 0, stdout: 'given back\n' });
  });
});
