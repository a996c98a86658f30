// A folder for the sockets of a test, and what each fd of ours must be.
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect } from 'vitest';
import {
  F_GETFD,
  F_GETFL,
  FD_CLOEXEC,
  O_NONBLOCK,
} from '../../../../protocol/unix/kernel-numbers.ts';
import { fcntl } from '../../../../protocol/unix/libc.ts';

/** A folder for each test of the file, and the path of a socket in it: given before it, removed after it. */
export function useSocketFolder(given: (folder: string, path: string) => void): void {
  let folder: string;
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'sockets-'));
    given(folder, join(folder, 'device.sock'));
  });
  afterEach(() => rmSync(folder, { recursive: true }));
}

export function expectNonBlockingAndCloseOnExec(fd: number): void {
  expect(fcntl(fd, F_GETFL, 0) & O_NONBLOCK).toBe(O_NONBLOCK);
  expect(fcntl(fd, F_GETFD, 0) & FD_CLOEXEC).toBe(FD_CLOEXEC);
}
