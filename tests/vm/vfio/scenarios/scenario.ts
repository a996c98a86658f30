// What a scenario program is made of: it runs inside the virtual host, on the kernel's real VFIO, prints a line for each
// step that went well, and ends with status 1 at the first that did not.
import { strict as assert } from 'node:assert';
import { readFileSync } from 'node:fs';
import {
  type FunctionHandle,
  type HostLink,
  type PhysicalDevice,
  perform,
} from '../../../../backend/device/physical-device.ts';
import type { ContainerMode } from '../../../../backend/devices/vfio/dma/dma-director.ts';
import { PinnedMemory } from '../../../../backend/devices/vfio/dma/pinned-memory.ts';
import { openVfioDevice } from '../../../../backend/devices/vfio/open-vfio-device.ts';
import { VfioContainer } from '../../../../backend/devices/vfio/vfio/container.ts';
import { VfioFunction, type VfioHandle } from '../../../../backend/devices/vfio/vfio/function.ts';
import {
  type KernelCalls,
  linuxCalls,
} from '../../../../backend/devices/vfio/vfio/kernel-calls.ts';
import type { VfHost } from '../../../../backend/devices/vfio/vfs/vf-host.ts';
import { logInto } from '../../../../protocol/log.ts';
import { processClock } from '../../../../protocol/unix/process-clock.ts';

export const PF = '0000:01:00.0';
export const PF_FOLDER = `/sys/bus/pci/devices/${PF}`;

/** Runs one step and prints its name and its time. */
export async function step<T>(name: string, work: () => Promise<T> | T): Promise<T> {
  const start = performance.now();
  try {
    const result = await work();
    console.log(`ok ${name} (${Math.round(performance.now() - start)} ms)`);
    return result;
  } catch (error) {
    console.log(`FAILED ${name}: ${error instanceof Error ? error.stack : error}`);
    process.exit(1);
  }
}

/** Opens the PF as `serve` does; log lines go to the output. */
export function openPf(
  options: { profile?: string; pf?: string; container?: ContainerMode } = {},
): Promise<VfHost> {
  return openVfioDevice(
    {
      pf: options.pf ?? PF,
      container: options.container ?? 'shared',
      ...(options.profile === undefined ? {} : { profile: options.profile }),
      log: logInto((level, message, fields) => console.log(level, message, JSON.stringify(fields))),
    },
    processClock,
  );
}

/** An address space for functions that do no DMA. */
export function emptyContainer(calls: KernelCalls): Promise<VfioContainer> {
  const refuse = () => Promise.reject(new Error('nothing is mapped into an empty container'));
  const mapper = { map: refuse, unmap: refuse, close: () => {} };
  return VfioContainer.open(calls, {
    dev: '/dev',
    memlock: undefined,
    mapper,
    pinned: new PinnedMemory(0n, calls.fileIdentity),
    clock: processClock,
  });
}

/** A function as the device thread has it, with a HostLink straight to the device. */
export function functionOf(device: PhysicalDevice, handle: FunctionHandle): VfioFunction {
  return new VfioFunction(linuxCalls(), handle as VfioHandle, linkTo(device));
}

/** Turns a call with a `done` into a promise. */
export function finished(call: (done: (error?: Error) => void) => void): Promise<void> {
  return new Promise((resolve, reject) => {
    call((error) => (error ? reject(error) : resolve()));
  });
}

/** Waits until `condition` holds. */
export async function until(what: string, condition: () => boolean, limit = 5_000): Promise<void> {
  const deadline = Date.now() + limit;
  while (!condition()) {
    assert.ok(Date.now() < deadline, `${what}: not within ${limit} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

export function readPf(attribute: string): string {
  return readFileSync(`${PF_FOLDER}/${attribute}`, 'utf8').trim();
}

function linkTo(device: PhysicalDevice): HostLink {
  return {
    request(name, args, done) {
      perform(device, name, args).then(
        (reply) => done(undefined, reply as never),
        (error) => done(error, undefined),
      );
    },
  };
}
