import { spawnSync } from 'node:child_process';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { createEventFd, drainEventFd, signalEventFd } from '../../../../protocol/unix/eventfd.ts';
import { socketPair } from '../../../../protocol/unix/fd-socket.ts';
import { closeFd, ErrnoNumber } from '../../../../protocol/unix/libc.ts';
import { createMemfd } from '../../../../protocol/unix/memory.ts';
import { SocketBuffer } from '../../../../protocol/unix/socket-buffer.ts';
import { watchFd } from '../../../../protocol/unix/watch-fd.ts';
import { builtModule } from './built-module.ts';

describe('the watch of an fd', () => {
  let fds: number[];
  beforeEach(() => {
    fds = Array.from({ length: 3 }, createEventFd);
  });
  afterEach(() => {
    fds.forEach(closeFd);
  });

  function once(fd: number): Promise<bigint> {
    return new Promise((resolve) => {
      const stop = watchFd(fd, () => {
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
    await new Promise(setImmediate);
    signalEventFd(fds[0]!);
    expect(await waiting).toBe(1n);
  });

  it('sees an fd that is added while it polls for another', async () => {
    const stop = watchFd(fds[0]!, () => {});
    await new Promise(setImmediate);
    const waiting = once(fds[1]!);
    signalEventFd(fds[1]!);
    expect(await waiting).toBe(1n);
    stop();
  });

  it('calls again for as long as an fd stays readable', async () => {
    let calls = 0;
    signalEventFd(fds[0]!);
    await new Promise<void>((resolve) => {
      const stop = watchFd(fds[0]!, () => {
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
      const stop = watchFd(a, () => {
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
      watchFd(fd, () => {
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

  it('tells all that is left to read of a connection that has failed, and then the failure', async () => {
    const [a, b] = socketPair();
    const buffer = new SocketBuffer(16);
    buffer.send(a, 0, 16);
    for (let message = 0; message < 3; message++) {
      buffer.send(b, 0, 16);
    }
    // With something unread on its side, so that this one fails with ECONNRESET.
    closeFd(b);
    const results: number[] = [];
    await new Promise<void>((resolve) => {
      const stop = watchFd(a, () => {
        results.push(buffer.receive(a));
        if (results.length === 5) {
          stop();
          resolve();
        }
      });
    });
    expect(results).toEqual([16, 16, 16, -ErrnoNumber.ECONNRESET, 0]);
    closeFd(a);
  });

  it('refuses a second watch of an fd', () => {
    const stop = watchFd(fds[0]!, () => {});
    expect(() => watchFd(fds[0]!, () => {})).toThrow('it is watched already');
    stop();
    stop();
    watchFd(fds[0]!, () => {})();
  });

  it('refuses what cannot be waited for', () => {
    const memory = createMemfd('memory', 4096);
    expect(() => watchFd(memory, () => {})).toThrow('operation not permitted (EPERM)');
    closeFd(memory);
    expect(() => watchFd(memory, () => {})).toThrow('bad file descriptor (EBADF)');
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
});

describe('a process that watches an fd', () => {
  const preamble = `
    import { createEventFd, signalEventFd, drainEventFd } from ${JSON.stringify(builtModule('eventfd'))};
    import { watchFd } from ${JSON.stringify(builtModule('watch-fd'))};
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
      const stop = watchFd(fd, () => {});
      setImmediate(stop);
      process.on('exit', () => console.log('end'));
    `);
    expect(child).toMatchObject({ status: 0, stdout: 'end\n' });
  });

  it('stays alive while something is watched', () => {
    const child = run(`
      const stop = watchFd(fd, () => { console.log('seen', drainEventFd(fd)); stop(); });
      setImmediate(() => signalEventFd(fd)).unref();
    `);
    expect(child).toMatchObject({ status: 0, stdout: 'seen 1n\n' });
  });

  it('exits at once in the middle of a poll', () => {
    const child = run(`
      watchFd(fd, () => {});
      setImmediate(() => process.exit(3));
    `);
    expect(child.status).toBe(3);
  });

  it('exits from within a callback', () => {
    const child = run(`
      watchFd(fd, () => process.exit(4));
      signalEventFd(fd);
    `);
    expect(child.status).toBe(4);
  });

  it('dies of an uncaught exception in the middle of a poll', () => {
    const child = run(`
      watchFd(fd, () => {});
      setImmediate(() => { throw new Error('boom'); });
    `);
    expect(child.status).toBe(1);
    expect(child.stderr).toContain('boom');
  });

  it('reports a callback that throws as uncaught, and serves on where that is survived', () => {
    const child = run(`
      process.on('uncaughtException', (error) => console.log(error.message));
      let calls = 0;
      const stop = watchFd(fd, () => {
        calls++;
        if (calls === 2) { stop(); console.log('served on'); return; }
        throw new Error('boom');
      });
      signalEventFd(fd);
    `);
    expect(child).toMatchObject({ status: 0, stdout: 'boom\nserved on\n' });
  });

  it('watches on a worker thread alike, which can be terminated meanwhile', () => {
    const worker = `
      import { parentPort } from 'node:worker_threads';
      import { createEventFd, drainEventFd, signalEventFd } from ${JSON.stringify(builtModule('eventfd'))};
      import { watchFd } from ${JSON.stringify(builtModule('watch-fd'))};
      const fd = createEventFd();
      watchFd(fd, () => parentPort.postMessage('seen ' + drainEventFd(fd)));
      signalEventFd(fd);
    `;
    const child = run(`
      import { once } from 'node:events';
      import { Worker } from 'node:worker_threads';
      const worker = new Worker(${JSON.stringify(worker)}, { eval: true, execArgv: ['--input-type=module'] });
      console.log((await once(worker, 'message'))[0]);
      await worker.terminate();
    `);
    expect(child).toMatchObject({ status: 0, stdout: 'seen 1\n' });
  });
});
