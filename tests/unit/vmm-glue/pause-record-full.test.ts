// A glue whose note finds no room: the guest is not paused without one.
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it, vi } from 'vitest';
import { UserError } from '../../../protocol/user-error.ts';
import { PauseRecord } from '../../../vmm-glue/qemu/pause-record.ts';

vi.mock('node:fs', async (original) => ({
  ...(await original<typeof import('node:fs')>()),
  writeSync: () => {
    throw Object.assign(new Error('ENOSPC: no space left on device, write'), {
      errno: -28,
      code: 'ENOSPC',
      syscall: 'write',
    });
  },
}));

it('a note that finds no room is refused, with the file and what to do', () => {
  const folder = mkdtempSync(join(tmpdir(), 'pause-'));
  writeFileSync(join(folder, 'qmp.sock'), '');
  const record = PauseRecord.open(join(folder, 'qmp.sock'));
  try {
    record.write({ qemu: '4711' });
    expect.unreachable();
  } catch (error) {
    expect(error).toBeInstanceOf(UserError);
    expect((error as UserError).message).toContain(record.path);
    expect((error as UserError).message).toContain('ENOSPC');
    expect((error as UserError).fix).toBeTruthy();
  } finally {
    record.close();
    rmSync(folder, { recursive: true });
  }
});
