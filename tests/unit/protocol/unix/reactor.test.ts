import { spawnSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createEventFd, drainEventFd, signalEventFd } from '../../../../protocol/unix/eventfd.ts';
import { SocketBuffer, socketPair } from '../../../../protocol/unix/fd-socket.ts';
import { closeFd } from '../../../../protocol/unix/libc.ts';
import { Reactor } from '../../../../protocol/unix/reactor.ts';
import { builtModule } from './built-module.ts';
import { openFds } from './open-fds.ts';

describe('Reactor', () => {
  let reactor: Reactor;
  let fds: number[];
  beforeEach(() => {
    reactor = new Reactor();
    fds = Array.from({ length: 3 }, createEventFd);
  });
  afterEach(() => {
    reactor.close();
    fds.forEach(closeFd);
  });

  function once(fd: number): Promise<bigint> {
    return new Promise((resolve) => {
      const stop = reactor.watch(fd, () => {
        stop();
        resolve(drainEventFd(fd));
      });
    });
  }

  it('calls back for what is readable already', async () => {
    signalEventFd(fds[0]!);
    expect(await once(fds[0]!)).toBe(1n);
  });

  it('calls back for what becomes readable while it polls', async () => {
    const waiting = once(fds[0]!);
    await new Promise((resolve) => setTimeout(resolve, 20));
    signalEventFd(fds[0]!);
    expect(await waiting).toBe(1n);
  });

  it('sees an fd that is added while it polls for another', async () => {
    reactor.watch(fds[0]!, () => {});
    await new Promise((resolve) => setTimeout(resolve, 20));
    const waiting = once(fds[1]!);
    signalEventFd(fds[1]!);
    expect(await waiting).toBe(1n);
  });

  it('calls again for as long as an fd stays readable', async () => {
    let calls = 0;
    signalEventFd(fds[0]!);
    await new Promise<void>((resolve) => {
      const stop = reactor.watch(fds[0]!, () => {
        calls++;
        if (calls < 5) {
          return;
        }
        stop();
        resolve();
      });
    });
    expect(calls).toBe(5);
  });

  it('calls back when the peer closes, so that a read shows it', async () => {
    const [a, b] = socketPair();
    const buffer = new SocketBuffer(16);
    const result = new Promise<number>((resolve) => {
      const stop = reactor.watch(a, () => {
        stop();
        resolve(buffer.receive(a));
      });
    });
    closeFd(b);
    expect(await result).toBe(0);
    closeFd(a);
  });

  it('never calls after the watch ended, not even from an earlier callback of the same round', async () => {
    const other = createEventFd();
    const called: number[] = [];
    const stops = fds.map((fd) =>
      reactor.watch(fd, () => {
        called.push(fd);
        for (const stop of stops) {
          stop();
        }
      }),
    );
    for (const fd of [...fds, other]) {
      signalEventFd(fd);
    }
    await once(other);
    expect(called).toHaveLength(1);
    closeFd(other);
  });

  it('refuses a second watch of an fd, and any watch once closed', () => {
    reactor.watch(fds[0]!, () => {});
    expect(() => reactor.watch(fds[0]!, () => {})).toThrow('it is watched already');
    reactor.close();
    expect(() => reactor.watch(fds[1]!, () => {})).toThrow('the reactor is closed');
  });

  it('drops an fd that was closed under its watch, after telling once', async () => {
    const fd = createEventFd();
    for (const other of fds) {
      signalEventFd(other);
    }
    let calls = 0;
    reactor.watch(fd, () => calls++);
    closeFd(fd);
    for (const other of fds) {
      await once(other);
    }
    expect(calls).toBe(1);
  });

  it('watches far more fds than it starts with', async () => {
    const many = Array.from({ length: 200 }, createEventFd);
    const all = many.map(once);
    for (const fd of many) {
      signalEventFd(fd);
    }
    expect(await Promise.all(all)).toEqual(many.map(() => 1n));
    many.forEach(closeFd);
  });

  it('gives its own fd back', async () => {
    const before = openFds();
    const other = new Reactor();
    const stop = other.watch(fds[0]!, () => {});
    await new Promise((resolve) => setTimeout(resolve, 20));
    other.close();
    other.close();
    stop();
    await expect.poll(openFds).toBe(before);
  });
});

describe('a process with a Reactor', () => {
  const preamble = `
    import { createEventFd, signalEventFd, drainEventFd } from ${JSON.stringify(builtModule('eventfd'))};
    import { Reactor } from ${JSON.stringify(builtModule('reactor'))};
    const reactor = new Reactor();
    const fd = createEventFd();
  `;

  function run(script: string): { status: number | null; stdout: string; stderr: string } {
    const args = ['--input-type=module', '-e', preamble + script];
    return spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 15_000 });
  }

  it('ends by itself while nothing is watched', () => {
    expect(run(`console.log('end')`)).toMatchObject({ status: 0, stdout: 'end\n' });
  });

  it('ends by itself once the last watch has ended', () => {
    const child = run(`
      const stop = reactor.watch(fd, () => {});
      setTimeout(stop, 20);
      process.on('exit', () => console.log('end'));
    `);
    expect(child).toMatchObject({ status: 0, stdout: 'end\n' });
  });

  it('ends by itself once the reactor is closed', () => {
    const child = run(`
      reactor.watch(fd, () => {});
      setTimeout(() => reactor.close(), 20);
    `);
    expect(child.status).toBe(0);
  });

  it('stays alive while something is watched', () => {
    const child = run(`
      const stop = reactor.watch(fd, () => { console.log('seen', drainEventFd(fd)); stop(); });
      setTimeout(() => signalEventFd(fd), 100).unref();
    `);
    expect(child).toMatchObject({ status: 0, stdout: 'seen 1n\n' });
  });

  it('exits at once in the middle of a poll', () => {
    const child = run(`
      reactor.watch(fd, () => {});
      setTimeout(() => process.exit(3), 50);
    `);
    expect(child.status).toBe(3);
  });

  it('exits from within a callback', () => {
    const child = run(`
      reactor.watch(fd, () => process.exit(4));
      signalEventFd(fd);
    `);
    expect(child.status).toBe(4);
  });

  it('dies of an uncaught exception in the middle of a poll', () => {
    const child = run(`
      reactor.watch(fd, () => {});
      setTimeout(() => { throw new Error('boom'); }, 50);
    `);
    expect(child.status).toBe(1);
    expect(child.stderr).toContain('boom');
  });

  it('reports a callback that throws as uncaught, and serves on where that is survived', () => {
    const child = run(`
      process.on('uncaughtException', (error) => console.log(error.message));
      let calls = 0;
      const stop = reactor.watch(fd, () => {
        calls++;
        if (calls === 2) { stop(); console.log('served on'); return; }
        throw new Error('boom');
      });
      signalEventFd(fd);
    `);
    expect(child).toMatchObject({ status: 0, stdout: 'boom\nserved on\n' });
  });
});
