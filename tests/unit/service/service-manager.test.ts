// What systemd is told: the words, and where they go.
import { describe, expect, it } from 'vitest';
import { ServiceManager, type ServiceState } from '../../../backend/service/service-manager.ts';
import { activatedFd } from '../../../protocol/launch/activation.ts';
import { logInto } from '../../../protocol/log.ts';
import { ManualClock } from '../../fakes/manual-clock.ts';

const STATE: ServiceState = { device: '0000:01:00.0', phase: 'enabled', vfs: 4, totalVfs: 7 };

const PID = 100;

describe('a service manager', () => {
  it('hears of each step of a life', () => {
    const heard: string[] = [];
    const manager = new ServiceManager({ send: (text) => heard.push(text) > 0 }, new ManualClock());
    manager.ready({ ...STATE, phase: 'disabled', vfs: 0 });
    manager.changed(STATE);
    manager.alive();
    manager.stopping();
    expect(heard).toEqual([
      'READY=1\nSTATUS=0000:01:00.0: SR-IOV disabled, 0 of 7 VFs',
      'STATUS=0000:01:00.0: SR-IOV enabled, 4 of 7 VFs',
      'WATCHDOG=1',
      'STOPPING=1\nSTATUS=taking the VFs away',
    ]);
  });

  it('that has no room hears of what is so as soon as it has, and of no life that was', () => {
    const heard: string[] = [];
    let hasRoom = false;
    const clock = new ManualClock();
    const send = (text: string) => hasRoom && heard.push(text) > 0;
    const manager = new ServiceManager({ send }, clock);
    manager.ready({ ...STATE, phase: 'disabled', vfs: 0 });
    manager.alive();
    manager.changed(STATE);
    clock.elapse(1000);
    hasRoom = true;
    clock.elapse(1000);
    expect(heard).toEqual(['READY=1\nSTATUS=0000:01:00.0: SR-IOV enabled, 4 of 7 VFs']);
  });

  it('that is not there is told nothing, and nobody is watched', () => {
    const manager = ServiceManager.of({ WATCHDOG_USEC: '1000000' }, silent(), new ManualClock());
    manager.ready(STATE);
    expect(manager.aliveMilliseconds).toBeUndefined();
  });

  it.each(['/nowhere/notify', 'vsock:2:1234', `/${'x'.repeat(120)}`])(
    'at %s costs a warning',
    (address) => {
      const lines: string[] = [];
      const manager = ServiceManager.of(
        { NOTIFY_SOCKET: address },
        silent(lines),
        new ManualClock(),
      );
      manager.alive();
      expect(lines).toHaveLength(1);
      expect(lines[0]).toContain('systemd is told nothing: NOTIFY_SOCKET: connect');
    },
  );
});

describe('a socket that systemd passes', () => {
  const environment = { LISTEN_PID: '100', LISTEN_FDS: '1' };

  it('is the first fd behind the standard ones', () => {
    expect(activatedFd(environment, PID)).toBe(3);
  });

  it('is that of the PF by its name, where there are more', () => {
    const names = { LISTEN_FDS: '3', LISTEN_FDNAMES: 'metrics:pf:other' };
    expect(activatedFd({ ...environment, ...names }, PID)).toBe(4);
  });

  it.each([
    {},
    { LISTEN_FDS: '1' },
    { LISTEN_PID: '99', LISTEN_FDS: '1' },
    { LISTEN_PID: '100', LISTEN_FDS: '0' },
    { LISTEN_PID: '100', LISTEN_FDS: 'many' },
  ])('is none of ours with %j', (given) => {
    expect(activatedFd(given, PID)).toBeUndefined();
  });

  it.each(['', 'a:b', 'pf:pf'])('is not guessed among two named "%s"', (names) => {
    const given = { ...environment, LISTEN_FDS: '2', LISTEN_FDNAMES: names };
    expect(() => activatedFd(given, PID)).toThrow('systemd passes 2 sockets');
  });
});

function silent(lines: string[] = []) {
  return logInto((_level, message) => lines.push(message));
}
