// A QEMU as its monitor shows it: a QMP server on a unix socket, a guest that runs or not, the configuration ports
// with the config space behind them, and the QOM tree and query-pci answers of a q35 with a root port. It records
// every command, and can be slow, refuse, say nothing, or vanish. One client at a time, as QEMU's own. As an aarch64 it has a
// virt's host bridge and takes writes to config space by qtest; as an x86_64 where it is given an `mmcfg`.
import { createServer, type Server, type Socket } from 'node:net';

/** A vfio-user-pci device of the fake. `bus` 0 is the root bus, 1 that behind the port `rp1` at 00:01.0. */
export interface FakeFunction {
  readonly id: string;
  readonly bus: 0 | 1;
  readonly devfn: number;
  readonly socketPath: string;
  /** Where the guest has put its BAR 0, if not where all have theirs. */
  barAddress?: number;
}

/** What selects the bus numbers of the port. */
const BUS_NUMBERS_OF_PORT = 0x8000_0818;
/** As in a virt of QEMU 11.1. */
const ECAM = { addr: 0x40_1000_0000, size: 0x1000_0000 };

interface ChardevAdd {
  readonly backend: {
    readonly data: { readonly addr: { readonly data: { readonly path: string } } };
  };
}

interface Command {
  readonly execute: string;
  readonly id?: number;
  readonly arguments?: Record<string, string>;
}

/** `first`: what happens before the command is carried out and answered, and what it waits for. */
type Reaction = 'refuse' | 'ignore' | 'disconnect' | { first(): void | Promise<void> };

export class FakeQemu {
  readonly path: string;
  arch = 'x86_64';
  isRunning = true;
  status = 'running';
  hostBridges = ['gpex-pcihost'];
  /** Where the guest has config space as memory in a q35; undefined: it is no q35. */
  mmcfg: number | undefined;
  functions: FakeFunction[] = [];
  /** Where the guest has put BAR 0 of each function; -1: nowhere. */
  barAddress = 0xfea0_0000;
  memoryBackends = [{ id: 'ram0', size: 1024 * 1024, share: true }];
  /** How the guest has numbered the bus behind the port. */
  portBus = 1;
  /** What the guest was about to access when it was stopped. */
  configAddress = 0x8001_0004;
  /** Dwords of config space by the value of CONFIG_ADDRESS that selects them. */
  readonly config = new Map<number, number>();
  /** Commands as they came: QMP names, or the line of a monitor command. */
  readonly commands: string[] = [];
  /** Made so far: the first one answers, and no other, as in 11.1. */
  qtestObjects = 0;
  /** What came by qtest. */
  readonly qtestCommands: string[] = [];
  /** Called before each of those is carried out. */
  onQtestCommand: (line: string) => void = () => {};
  /** How many that were since each stop. */
  readonly qtestCommandsOfPauses: number[] = [];
  /** Ids of the commands that had one. */
  readonly ids: number[] = [];
  /** Port writes that came while the guest ran. */
  unsafeWrites = 0;
  greets = true;
  /** What to do about the next commands that begin with a text; each is used as often as told. */
  readonly reactions: { startsWith: string; times: number; reaction: Reaction }[] = [];
  #server: Server | undefined;
  #client: Socket | undefined;
  readonly #sockets = new Set<Socket>();
  #qtest: Server | undefined;
  readonly #qtestSockets = new Set<Socket>();
  #last: Promise<void> = Promise.resolve();

  constructor(path: string) {
    this.path = path;
  }

  async listen(): Promise<void> {
    const server = createServer((socket) => this.#accept(socket));
    this.#server = server;
    await new Promise<void>((resolve) => server.listen(this.path, resolve));
  }

  /** How many are connected to its qtest. */
  get qtestClients(): number {
    return this.#qtestSockets.size;
  }

  /** The line to its qtest breaks. */
  breakQtest(): void {
    for (const socket of this.#qtestSockets) {
      socket.destroy();
    }
  }

  /** QEMU ends, or its socket does. */
  async vanish(): Promise<void> {
    this.breakQtest();
    this.#qtest?.close();
    for (const socket of this.#sockets) {
      socket.destroy();
    }
    this.#client = undefined;
    await new Promise<void>((resolve) => {
      if (this.#server === undefined) {
        resolve();
      } else {
        this.#server.close(() => resolve());
      }
    });
  }

  react(startsWith: string, reaction: Reaction, times = 1): void {
    this.reactions.push({ startsWith, times, reaction });
  }

  emit(event: string, data?: object): void {
    if (event === 'STOP' || event === 'RESUME') {
      this.isRunning = event === 'RESUME';
      this.status = this.isRunning ? 'running' : 'paused';
    }
    if (event === 'RESET') {
      this.config.clear();
    }
    const now = performance.timeOrigin + performance.now();
    const seconds = Math.floor(now / 1000);
    const microseconds = Math.floor((now - seconds * 1000) * 1000);
    this.#send({ event, data, timestamp: { seconds, microseconds } });
  }

  /** Monitor commands that touched ports. */
  portCommands(): string[] {
    return this.commands.filter((command) => /^[io] \//.test(command));
  }

  /** A BAR dword or Command of the function at `bus`:`devfn`. */
  register(bus: number, devfn: number, register: number): number | undefined {
    return this.config.get((0x8000_0000 | (bus << 16) | (devfn << 8) | register) >>> 0);
  }

  #accept(socket: Socket): void {
    this.#sockets.add(socket);
    socket.on('error', () => {});
    socket.on('close', () => {
      this.#sockets.delete(socket);
      if (this.#client !== socket) {
        return;
      }
      this.#client = undefined;
      const [next] = this.#sockets;
      if (next !== undefined) {
        this.#serve(next);
      }
    });
    if (this.#client === undefined && this.greets) {
      this.#serve(socket);
    }
  }

  #serve(socket: Socket): void {
    this.#client = socket;
    this.#send({ QMP: { version: { qemu: { major: 11, minor: 1, micro: 3 } }, capabilities: [] } });
    let text = '';
    socket.on('data', (chunk) => {
      text += chunk.toString();
      const lines = text.split('\n');
      text = lines.pop()!;
      for (const line of lines) {
        this.#command(JSON.parse(line));
      }
    });
  }

  #send(message: object): void {
    this.#client?.write(`${JSON.stringify(message)}\r\n`);
  }

  /** One after the other, as QEMU does, however long one takes. */
  #command(message: Command): void {
    this.#last = this.#last.then(() => this.#answer(message));
  }

  async #answer({ execute, id, arguments: args = {} }: Command): Promise<void> {
    const line = args['command-line'] ?? execute;
    this.commands.push(line);
    if (id !== undefined) {
      this.ids.push(id);
    }
    const plan = this.reactions.find((each) => each.times > 0 && line.startsWith(each.startsWith));
    if (plan !== undefined) {
      plan.times--;
    }
    switch (plan?.reaction) {
      case 'refuse':
        this.#send({ id, error: { class: 'GenericError', desc: `no ${line} today` } });
        return;
      case 'disconnect':
        this.#client?.destroy();
        return;
      case 'ignore':
        return;
      default:
        await plan?.reaction.first();
        this.#send({ id, return: await this.#carryOut(execute, args) });
    }
  }

  #carryOut(command: string, args: Record<string, string>): unknown {
    switch (command) {
      case 'query-status':
        return { running: this.isRunning, status: this.status };
      case 'query-target':
        return { arch: this.arch };
      case 'object-add':
        this.qtestObjects++;
        return {};
      case 'chardev-add':
        return this.#listenForQtest(args);
      case 'stop':
        // One that is suspended to RAM is stopped and resumed like one that runs, and not running by query-status.
        if (this.isRunning || this.status === 'suspended') {
          this.qtestCommandsOfPauses.push(0);
          this.emit('STOP');
        }
        return {};
      case 'cont':
        if (!this.isRunning) {
          this.emit('RESUME');
        }
        return {};
      case 'human-monitor-command':
        return this.#monitor(args['command-line']!);
      case 'qom-list':
        return this.#list(args.path!);
      case 'qom-get':
        return this.#get(args.path!, args.property!);
      case 'query-memdev':
        return this.memoryBackends;
      case 'query-pci':
        return this.#pci();
      default:
        return {};
    }
  }

  async #listenForQtest(args: object): Promise<object> {
    const { path } = (args as ChardevAdd).backend.data.addr.data;
    this.#qtest?.close();
    const server = createServer((socket) => {
      this.#qtestSockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => this.#qtestSockets.delete(socket));
      let text = '';
      socket.on('data', (chunk) => {
        const lines = (text + chunk).split('\n');
        text = lines.pop()!;
        for (const line of this.qtestObjects > 1 ? [] : lines) {
          socket.write(`${this.#qtestAnswer(line)}\n`);
        }
      });
    });
    this.#qtest = server;
    await new Promise<void>((resolve) => server.listen(path, resolve));
    return {};
  }

  #qtestAnswer(line: string): string {
    this.qtestCommands.push(line);
    this.onQtestCommand(line);
    this.qtestCommandsOfPauses[this.qtestCommandsOfPauses.length - 1]! += 1;
    const [command, address, value, data] = line.split(' ');
    const offset = Number(address) - (this.mmcfg ?? ECAM.addr);
    const key = (0x8000_0000 | ((offset >> 12) << 8) | (offset & 0xff)) >>> 0;
    if (command === 'readl') {
      return `OK 0x${this.#readConfig(key).toString(16).padStart(16, '0')}`;
    }
    if (!/^write[wl]?$/.test(command ?? '')) {
      return `FAIL Unknown command '${command}'`;
    }
    if (this.isRunning) {
      this.unsafeWrites++;
    }
    if (command === 'write') {
      const bytes = Buffer.from(data!.slice(2), 'hex');
      for (let at = 0; at < Number(value); at += 4) {
        this.#writeConfig(bytes.readUInt32LE(at), false, key + at);
      }
    } else {
      this.#writeConfig(Number(value), command === 'writew', key);
    }
    return 'OK';
  }

  #monitor(line: string): string {
    if (line === 'i /w 0xcf8') {
      return `portl[0x0cf8] = 0x${this.configAddress.toString(16).padStart(8, '0')}\r\n`;
    }
    const match = /^o \/([hw]) 0x(cf8|cfc) 0x([0-9a-f]+)$/.exec(line);
    if (match === null) {
      return `unknown command: '${line}'\r\n`;
    }
    const value = Number.parseInt(match[3]!, 16);
    if (this.isRunning) {
      this.unsafeWrites++;
    }
    if (match[2] === 'cf8') {
      this.configAddress = value;
    } else {
      this.#writeConfig(value, match[1] === 'h');
    }
    return '';
  }

  #readConfig(key: number): number {
    return key === BUS_NUMBERS_OF_PORT ? this.portBus * 0x1_0100 : (this.config.get(key) ?? 0);
  }

  #writeConfig(value: number, isHalf: boolean, key = this.configAddress): void {
    const before = this.config.get(key) ?? 0;
    const merged = isHalf ? (before & 0xffff_0000) | value : value;
    this.config.set(key, merged >>> 0);
  }

  #list(path: string): { name: string; type: string }[] {
    if (path === '/machine/peripheral') {
      return [
        { name: 'type', type: 'string' },
        { name: 'rp1', type: 'child<pcie-root-port>' },
        ...this.functions.map(({ id }) => ({ name: id, type: 'child<vfio-user-pci>' })),
      ];
    }
    if (path === '/machine/unattached') {
      return this.hostBridges.map((type) => ({ name: 'device[5]', type: `child<${type}>` }));
    }
    const found = this.functions.find(({ id }) => path === `/machine/peripheral/${id}`);
    if (found === undefined) {
      return [];
    }
    const escaped = found.socketPath.replaceAll('/', '\\x2f');
    return [
      { name: 'addr', type: 'str' },
      { name: 'bus master[0]', type: 'child<memory-region>' },
      { name: `vfio-user:${escaped} base BAR 0[0]`, type: 'child<memory-region>' },
      { name: `vfio-user:${escaped} BAR 0[0]`, type: 'child<memory-region>' },
    ];
  }

  #get(path: string, property: string): unknown {
    if (path === '/machine') {
      return 'some-machine';
    }
    if (path === '/machine/unattached/device[5]/pcie-ecam[0]') {
      return ECAM[property as keyof typeof ECAM];
    }
    if (path === '/machine/q35' && this.mmcfg !== undefined) {
      return property === 'MCFG' ? this.mmcfg : ECAM.size;
    }
    if (path === '/machine/peripheral/rp1') {
      return property === 'addr' ? 8 : '/machine/q35/pcie.0';
    }
    const found = this.functions.find(({ id }) => path === `/machine/peripheral/${id}`);
    if (property === 'addr') {
      return found?.devfn;
    }
    return found?.bus === 1 ? '/machine/peripheral/rp1/rp1' : '/machine/q35/pcie.0';
  }

  #pci(): unknown {
    const device = (each: Omit<FakeFunction, 'socketPath'>): object => ({
      qdev_id: each.id,
      bus: each.bus && this.portBus,
      slot: each.devfn >> 3,
      function: each.devfn & 7,
      regions: [{ bar: 0, address: each.barAddress ?? this.barAddress, size: 0x4000 }],
    });
    const behind = this.functions.filter(({ bus }) => bus === 1).map(device);
    return [
      {
        bus: 0,
        devices: [
          device({ id: '', bus: 0, devfn: 0 }),
          {
            ...device({ id: 'rp1', bus: 0, devfn: 8 }),
            pci_bridge: {
              bus: { number: 0, secondary: this.portBus, subordinate: this.portBus },
              devices: behind,
            },
          },
          ...this.functions.filter(({ bus }) => bus === 0).map(device),
        ],
      },
    ];
  }
}
