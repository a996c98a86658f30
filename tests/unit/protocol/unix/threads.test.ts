import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import { builtModule } from './built-module.ts';

// A worker that echoes on a socket without an event loop, until its eventfd is signalled.
const worker = `
  import { workerData, parentPort } from 'node:worker_threads';
  import { SocketBuffer } from ${JSON.stringify(builtModule('socket-buffer'))};
  import { PollSet } from ${JSON.stringify(builtModule('poll-set'))};
  const { socket, wake } = workerData;
  const set = new PollSet();
  set.set(socket, { readable: true });
  set.set(wake, { readable: true });
  const buffer = new SocketBuffer(4096);
  parentPort.postMessage('running');
  for (let running = true; running; ) {
    set.wait(-1);
    for (const { fd } of set.ready()) {
      if (fd === wake) running = false;
      else buffer.send(fd, 0, buffer.receive(fd));
    }
  }
  parentPort.postMessage('stopped');
`;

const main = (echoes: number) => `
  import { Worker } from 'node:worker_threads';
  import { once } from 'node:events';
  import { createEventFd, signalEventFd } from ${JSON.stringify(builtModule('eventfd'))};
  import { socketPair } from ${JSON.stringify(builtModule('fd-socket'))};
  import { SocketBuffer } from ${JSON.stringify(builtModule('socket-buffer'))};
  import { ErrnoNumber, read } from ${JSON.stringify(builtModule('libc'))};
  const [ours, theirs] = socketPair();
  const wake = createEventFd();
  process.on('exit', () => signalEventFd(wake));
  const worker = new Worker(${JSON.stringify(worker)}, {
    eval: true,
    execArgv: ['--input-type=module'], // Node 20 takes text for a script otherwise
    workerData: { socket: theirs, wake },
  });
  const [running] = await once(worker, 'message');
  const buffer = new SocketBuffer(4096);
  for (let i = 0; i < ${echoes}; i++) {
    buffer.view.setUint32(0, i, true);
    buffer.send(ours, 0, 4);
    let result;
    do {
      if (read(-1, null, 0) !== -ErrnoNumber.EBADF) throw new Error('errno of another thread');
      result = buffer.receive(ours);
    } while (result === -ErrnoNumber.EAGAIN);
    if (result !== 4 || buffer.view.getUint32(0, true) !== i) throw new Error('echo of ' + i + ': ' + result);
  }
  console.log(running);
`;

// What V8 does between two functions on behalf of another thread, here a debugger, has an errno of its own.
const interrupted = `
  import { Worker } from 'node:worker_threads';
  import { ErrnoNumber, poll, read } from ${JSON.stringify(builtModule('libc'))};
  let interrupts = 0;
  globalThis.interrupt = () => {
    interrupts++;
    read(-1, null, 0);
  };
  process.on('SIGUSR2', () => {});
  new Worker(\`
    const { Session } = require('node:inspector');
    const session = new Session();
    session.connectToMainThread();
    setInterval(() => {
      session.post('Runtime.evaluate', { expression: 'interrupt()' });
      process.kill(process.pid, 'SIGUSR2');
    }, 5);
  \`, { eval: true, execArgv: [] });
  const results = new Set();
  while (interrupts < 10) results.add(poll(0n, 0, 5000));
  console.log(results.size, results.has(-ErrnoNumber.EINTR));
  process.exit();
`;

// Both threads spin, so that each echo may take a time slice where others want the CPUs.
function run(echoes: number, end: string) {
  return runProgram(main(echoes) + end);
}

function runProgram(text: string) {
  const args = ['--input-type=module', '-e', text];
  return spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 15_000 });
}

describe('two threads', () => {
  it('work side by side, each with its own errno and buffers', () => {
    const child = run(
      2000,
      `
      signalEventFd(wake);
      console.log((await once(worker, 'message'))[0]);
    `,
    );
    expect(child).toMatchObject({ status: 0, stdout: 'running\nstopped\n', stderr: '' });
  });

  it('that ask something of each other leave the errno of a call as it was', () => {
    expect(runProgram(interrupted)).toMatchObject({ status: 0, stdout: '1 true\n' });
  });

  it('end with process.exit() although one is blocked, where an exit hook wakes it', () => {
    expect(run(20, 'process.exit(5);')).toMatchObject({ status: 5, stdout: 'running\n' });
  });

  it('end with an uncaught exception although one is blocked', () => {
    expect(run(20, "throw new Error('boom');")).toMatchObject({ status: 1, stdout: 'running\n' });
  });
});
