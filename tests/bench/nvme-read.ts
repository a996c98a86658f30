// How long an NVMe read of 4 KiB takes in the device, from the doorbell to the completion in guest memory, against the bare
// round trip of the same client to the same server, in turns: a read of 4 bytes of config space.
import { join } from 'node:path';
import { VfioUserClient } from '../../vmm-glue/client/client.ts';
import { GuestMemory } from '../../vmm-glue/client/memory.ts';
import { type Figure, median, rounded } from './figure.ts';
import { repositoryRoot, startServer } from './server-process.ts';

const CONFIG = 7;
const BAR = 0;
const PAGE = 4096;
const MEMORY_BYTES = 64 * PAGE;
/** Pages of guest memory. */
const At = {
  adminSubmissions: PAGE,
  adminCompletions: 2 * PAGE,
  submissions: 3 * PAGE,
  completions: 4 * PAGE,
  data: 5 * PAGE,
} as const;
/** Controller registers and doorbells; NVM Express 1.4. */
const Register = { configuration: 0x14, attributes: 0x24, submissions: 0x28, completions: 0x30 };
const DOORBELLS = 0x1000;
const DOORBELL_BYTES = 4;
const ENABLE = 0x46_0001;
const Opcode = { createSubmissions: 1, createCompletions: 5, read: 2 } as const;
const ENTRIES = 16;
const BLOCKS = PAGE / 512;
const LIMIT = 2;

/** A pair of queues of ENTRIES entries each. */
interface Queue {
  readonly id: number;
  readonly submissions: number;
  readonly completions: number;
  tail: number;
  head: number;
  phase: number;
}

/** Figures nvme-read-ratio (of the medians), nvme-read and nvme-round-trip (microseconds). */
export async function measureNvmeRead(
  folder: string,
  { rounds, count }: { rounds: number; count: number },
): Promise<Figure[]> {
  const path = join(folder, 'nvme.sock');
  const cli = join(repositoryRoot(), 'dist/cli.js');
  const options = ['serve', '--device=nvme', `--socket-path=${path}`];
  const server = await startServer(process.execPath, [cli, ...options]);
  try {
    const client = await VfioUserClient.connect(path);
    const memory = new GuestMemory(MEMORY_BYTES);
    await client.mapDma({ address: 0n, size: BigInt(MEMORY_BYTES), fd: memory.fd });
    const host = new NvmeHost(client, memory);
    await host.enable();
    const times = { read: [] as number[], roundTrip: [] as number[] };
    for (let round = 0; round < rounds; round++) {
      times.roundTrip.push(await middle(count, () => client.readRegion(CONFIG, 0, 4)));
      times.read.push(await middle(count, () => host.read()));
    }
    client.close();
    memory.close();
    const [read, roundTrip] = [median(times.read), median(times.roundTrip)];
    const ofRounds = times.read.map((each, round) => rounded(each / times.roundTrip[round]!));
    return [
      {
        figure: 'nvme-read-ratio',
        value: rounded(read / roundTrip),
        unit: 'x',
        limit: LIMIT,
        details: { ofRounds, count },
      },
      { figure: 'nvme-read', value: rounded(read), unit: 'us', details: {} },
      { figure: 'nvme-round-trip', value: rounded(roundTrip), unit: 'us', details: {} },
    ];
  } finally {
    await server.stop();
  }
}

/** The median of so many, in microseconds. */
async function middle(count: number, once: () => Promise<unknown>): Promise<number> {
  const times: number[] = [];
  for (let done = 0; done < count; done++) {
    const began = performance.now();
    await once();
    times.push((performance.now() - began) * 1000);
  }
  return median(times);
}

/** As little of a driver as it takes. */
class NvmeHost {
  readonly #client: VfioUserClient;
  readonly #view: DataView;
  readonly #admin = queue(0, At.adminSubmissions, At.adminCompletions);
  readonly #io = queue(1, At.submissions, At.completions);

  constructor(client: VfioUserClient, { bytes }: GuestMemory) {
    this.#client = client;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }

  async enable(): Promise<void> {
    const BUS_MASTER = 6;
    await this.#client.reset();
    await this.#client.writeRegion(CONFIG, 4, Uint8Array.of(BUS_MASTER, 0));
    await this.#set(Register.attributes, ((ENTRIES - 1) << 16) | (ENTRIES - 1));
    await this.#set(Register.submissions, At.adminSubmissions);
    await this.#set(Register.completions, At.adminCompletions);
    await this.#set(Register.configuration, ENABLE);
    const size = ((ENTRIES - 1) << 16) | this.#io.id;
    await this.#command(this.#admin, Opcode.createCompletions, 0, At.completions, [size, 1]);
    await this.#command(this.#admin, Opcode.createSubmissions, 0, At.submissions, [size, 0x10001]);
  }

  read(): Promise<void> {
    return this.#command(this.#io, Opcode.read, 1, At.data, [0, 0, BLOCKS - 1]);
  }

  async #set(register: number, value: number): Promise<void> {
    const bytes = new Uint8Array(4);
    new DataView(bytes.buffer).setUint32(0, value, true);
    await this.#client.writeRegion(BAR, register, bytes);
  }

  /** Rings, and waits for the completion, which mostly is there before the answer to the doorbell's write. */
  async #command(
    to: Queue,
    opcode: number,
    namespaceId: number,
    prp1: number,
    dwords: readonly number[],
  ): Promise<void> {
    const entry = to.submissions + 64 * to.tail;
    this.#view.setUint32(entry, opcode | (to.tail << 16), true);
    this.#view.setUint32(entry + 4, namespaceId, true);
    this.#view.setBigUint64(entry + 24, BigInt(prp1), true);
    for (const [index, dword] of dwords.entries()) {
      this.#view.setUint32(entry + 40 + 4 * index, dword, true);
    }
    to.tail = (to.tail + 1) % ENTRIES;
    await this.#set(DOORBELLS + 2 * DOORBELL_BYTES * to.id, to.tail);
    const status = await this.#completion(to);
    if (status !== 0) {
      throw new Error(`NVMe command ${opcode} ended with status 0x${status.toString(16)}`);
    }
  }

  async #completion(of: Queue): Promise<number> {
    const at = of.completions + 16 * of.head + 14;
    while ((this.#view.getUint16(at, true) & 1) !== of.phase) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    of.head = (of.head + 1) % ENTRIES;
    of.phase = of.head === 0 ? 1 - of.phase : of.phase;
    // What is taken is told in passing: nobody waits for it.
    const bytes = Uint8Array.of(of.head, 0, 0, 0);
    this.#client.postRegionWrite(BAR, DOORBELLS + DOORBELL_BYTES * (2 * of.id + 1), bytes);
    return (this.#view.getUint16(at, true) >>> 1) & 0x7ff;
  }
}

function queue(id: number, submissions: number, completions: number): Queue {
  return { id, submissions, completions, tail: 0, head: 0, phase: 1 };
}
