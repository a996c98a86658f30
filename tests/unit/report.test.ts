// What a report has, and what it must not have.
import { describe, expect, it } from 'vitest';
import { linesThatMatter } from '../../backend/report/kernel.ts';
import { redacted } from '../../backend/report/redaction.ts';
import { reportText } from '../../backend/report/report.ts';

describe('what names somebody or lets somebody in', () => {
  it.each([
    ['vf-token=83d8f4f2-2f28-4a5d-9c8e-0123456789ab', 'vf-token=<UUID>'],
    ['Device Serial Number 00-1b-21-ff-ff-6c-8d-52', 'Device Serial Number <serial number>'],
    ['igb 0000:01:00.0: 90:e2:ba:01:02:03', 'igb 0000:01:00.0: <MAC>'],
    ['listens at 192.168.7.21 alone', 'listens at <IP> alone'],
    ['at fe80::92e2:baff:fe01:203 now', 'at <IP> now'],
    ['at [2001:db8:0:0:0:0:12:1]', 'at [<IP>]'],
    ['at ::1.', 'at <IP>.'],
    ['/home/ada/pf.sock', '/home/<user>/pf.sock'],
    ['lab-7 says: vfio', '<name> says: vfio'],
    ['user ada, adam', 'user <name>, adam'],
  ])('%s', (text, without) => {
    const { text: rest, removed } = redacted(text, ['lab-7', 'ada', 'x', 'root']);
    expect(rest).toBe(without);
    expect([...removed.values()]).toEqual([1]);
  });

  it.each([
    '0000:01:00.0: BAR 0 [mem 0xfea00000-0xfea1bfff 64bit pref]',
    'DMAR: [DMA Read NO_PASID] Request device [01:10.0] fault addr 0xffff0000',
    'kernel: 6.12.107+deb13-amd64, node v20.19.2, 0.2.0',
    'root port, 4 of 7 VFs',
    'pci 0000:01:00.0: [8086:10c9] type 00 class 0x020000; at 12:34:56: std::vector, "a":: b',
  ])('is not: %s', (text) => {
    expect(redacted(text, ['root', 'x'])).toEqual({ text, removed: new Map() });
  });
});

describe('the kernel’s lines', () => {
  const log = [
    '[1.0] vfio-pci 0000:01:00.0: enabling device',
    '[1.1] usb 1-1: SerialNumber: 123',
    '[1.2] e1000 0000:02:00.0 eth0: link up',
    '[1.3] my_card 0000:01:00.0: firmware 1.2',
  ].join('\n');

  it('are those of the matter', () => {
    expect(linesThatMatter(log, undefined)).toEqual([log.split('\n')[0]]);
  });

  it('are those that name the PF, too', () => {
    expect(linesThatMatter(log, '0000:01:00.0')).toHaveLength(2);
  });
});

it('a report says what was taken out of it, and moves no cursor', () => {
  const text = reportText({
    versions: { 'vfio-user-sriov': '1.2.3' },
    kernel: {
      release: '6.12',
      distribution: 'Debian',
      parameters: [],
      log: ['a\u001b[2J 1.2.3.4'],
    },
    doctor: { version: 1 },
    probe: 'not asked for',
    status: [],
    names: [],
  });
  expect(text).toContain('vfio-user-sriov: 1.2.3');
  expect(text).toContain('no backend of this user runs');
  expect(text).toContain('a\\u001b[2J <IP>');
  expect(text).toMatch(/== Left out\n\n.*\nIPv4 addresses: 1\n$/);
});
