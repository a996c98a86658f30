// Fetches packages of Debian's, of trixie and its backports unless told otherwise, with an apt of its own: own sources, own
// lists, an empty dpkg status. This machine's packages and sources stay as they are, whatever release it runs.
import { existsSync } from 'node:fs';
import { mkdir, readdir, rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { LabError } from './lab-error.ts';
import { debianMirror, installMachinePackages } from './machine.ts';
import { step } from './progress.ts';
import { type ProgramResult, runProgram } from './run-program.ts';

const KEYRINGS = [
  '/usr/share/keyrings/debian-archive-keyring.gpg',
  '/usr/share/keyrings/debian-archive-keyring.pgp',
];
const NETWORK_FIX = 'check the network and the proxy settings of apt, then run the lab again';

/** Where a package comes from that is unpacked by itself. */
export type Suite = 'bookworm' | 'trixie' | 'trixie-backports';

/** A release of Debian's for machines of one kind. */
export interface DebianRelease {
  readonly release: 'bookworm' | 'trixie';
  readonly architecture: 'amd64' | 'arm64';
  /** Of the archive; the release itself comes first. */
  readonly suites: readonly string[];
}

/** What nearly all of the lab is made of. */
export const TRIXIE: DebianRelease = {
  release: 'trixie',
  architecture: 'amd64',
  suites: ['trixie', 'trixie-updates', 'trixie-backports'],
};

/** What guests of another processor run. */
export const TRIXIE_ARM64: DebianRelease = {
  release: 'trixie',
  architecture: 'arm64',
  suites: ['trixie', 'trixie-updates'],
};

/** Packages of one release of Debian's, verified by apt against Debian's archive keys. */
export class DebianArchive {
  readonly #folder: string;
  readonly #mirror: string;
  readonly #from: DebianRelease;

  private constructor(folder: string, mirror: string, from: DebianRelease) {
    this.#folder = folder;
    this.#mirror = mirror;
    this.#from = from;
  }

  /** Fetches the package lists into `folder`, which the caller removes in the end. */
  static async open(folder: string, from: DebianRelease): Promise<DebianArchive> {
    const archive = new DebianArchive(folder, await debianMirror(), from);
    await step(`reading the package lists of ${archive.#name}`, () => archive.#update());
    return archive;
  }

  get #name(): string {
    const { release, architecture } = this.#from;
    const kind = architecture === 'amd64' ? '' : ` for ${architecture}`;
    return `Debian ${release}${kind} from ${this.#mirror}`;
  }

  /** Unpacks `packages` and all that they depend on under `prefix`, the newest that the release and its backports have. */
  async unpackWithDependencies(packages: readonly string[], prefix: string): Promise<void> {
    const newest = ['-t', this.#from.suites.at(-1)!];
    const install = ['-y', '--no-install-recommends', ...newest, 'install'];
    const downloaded = join(this.#folder, 'cache', 'archives');
    await rm(downloaded, { recursive: true, force: true });
    await mkdir(join(downloaded, 'partial'), { recursive: true });
    const result = await this.#apt([...install, '--download-only', ...packages]);
    this.#refuseFailure(packages.join(' '), result);
    await unpackAll(downloaded, prefix);
  }

  /** Unpacks one package, without what it depends on, under `prefix`. */
  async unpack(name: string, prefix: string, suite: Suite = this.#from.release): Promise<void> {
    const downloaded = join(this.#folder, `download-${name}`);
    await mkdir(downloaded, { recursive: true });
    this.#refuseFailure(name, await this.#apt(['download', `${name}/${suite}`], downloaded));
    await unpackAll(downloaded, prefix);
  }

  /** The packages that `name` depends on, in the order of its Depends field. */
  async dependenciesOf(name: string, suite: Suite = this.#from.release): Promise<string[]> {
    const result = await runProgram('apt-cache', [...this.#options(), 'show', `${name}/${suite}`]);
    this.#refuseFailure(name, result);
    const depends = /^Depends: (.*)$/m.exec(result.stdout.toString('utf8'))?.[1] ?? '';
    return depends.split(/[,|]/).map((dependency) => dependency.trim().split(/[ :]/)[0] ?? '');
  }

  async #update(): Promise<void> {
    await mkdir(join(this.#folder, 'state', 'lists', 'partial'), { recursive: true });
    await mkdir(join(this.#folder, 'cache', 'archives', 'partial'), { recursive: true });
    await mkdir(join(this.#folder, 'empty'), { recursive: true });
    await writeFile(join(this.#folder, 'state', 'status'), '');
    await this.#writeSources();
    let result = await this.#apt(['update', '--error-on=any']);
    if (/NO_PUBKEY|not signed|EXPKEYSIG/.test(result.stderr)) {
      // An early Debian 12 has a keyring from before trixie; its own release has had an update of it since.
      await installMachinePackages(['debian-archive-keyring']);
      await this.#writeSources();
      result = await this.#apt(['update', '--error-on=any']);
    }
    if (result.status !== 0) {
      throw new LabError(this.#name, errorsOf(result), NETWORK_FIX);
    }
  }

  async #writeSources(): Promise<void> {
    const keyring = KEYRINGS.find((path) => existsSync(path));
    if (keyring === undefined) {
      throw new LabError(
        'debian-archive-keyring',
        `none of ${KEYRINGS.join(', ')} is there`,
        'install it: apt-get install debian-archive-keyring',
      );
    }
    const { architecture, suites } = this.#from;
    const lines = suites.map(
      (suite) => `deb [arch=${architecture} signed-by=${keyring}] ${this.#mirror} ${suite} main\n`,
    );
    await writeFile(join(this.#folder, 'sources.list'), lines.join(''));
  }

  #apt(args: readonly string[], cwd = this.#folder): Promise<ProgramResult> {
    return runProgram('apt-get', ['-q', ...this.#options(), ...args], { cwd });
  }

  #options(): string[] {
    const settings = {
      'Dir::State': join(this.#folder, 'state'),
      'Dir::State::status': join(this.#folder, 'state', 'status'),
      'Dir::Cache': join(this.#folder, 'cache'),
      'Dir::Etc::sourcelist': join(this.#folder, 'sources.list'),
      'Dir::Etc::sourceparts': join(this.#folder, 'empty'),
      'Dir::Etc::preferences': join(this.#folder, 'no-preferences'),
      'Dir::Etc::preferencesparts': join(this.#folder, 'empty'),
      'APT::Architecture': this.#from.architecture,
      'APT::Sandbox::User': 'root',
      'APT::Install-Recommends': 'false',
      'Acquire::Languages': 'none',
      'Acquire::Retries': '3',
    };
    return Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`]);
  }

  #refuseFailure(thing: string, result: ProgramResult): void {
    if (result.status === 0) {
      return;
    }
    throw new LabError(`${thing} from ${this.#mirror}`, errorsOf(result), NETWORK_FIX);
  }
}

/** The first error that apt names: the others mostly follow from it. */
function errorsOf(result: ProgramResult): string {
  const first = result.stderr.split('\n').find((line) => line.startsWith('E:'));
  return first ?? (result.stderr || `apt-get ended with ${result.status}`);
}

async function unpackAll(folder: string, prefix: string): Promise<void> {
  await mkdir(prefix, { recursive: true });
  const packages = (await readdir(folder)).filter((name) => name.endsWith('.deb'));
  for (const name of packages.sort()) {
    const result = await runProgram('dpkg-deb', ['-x', join(folder, name), prefix]);
    if (result.status !== 0) {
      throw new LabError(name, result.stderr, `free some room on the disk of ${prefix}`);
    }
  }
}
