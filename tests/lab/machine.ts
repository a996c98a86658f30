// This machine's own Debian: which release it is, where its packages come from, and how to install some more.
import { readFile } from 'node:fs/promises';
import { LabError } from './lab-error.ts';
import { step } from './progress.ts';
import { runProgram } from './run-program.ts';

/**
 * The address of this machine's Debian archive, from its own apt configuration (or `$DEBIAN_MIRROR`), without a
 * final slash. Other suites of Debian are at the same address.
 */
export async function debianMirror(): Promise<string> {
  const chosen = process.env.DEBIAN_MIRROR;
  if (chosen) {
    return chosen.replace(/\/+$/, '');
  }
  const targets = await runProgram('apt-get', [
    'indextargets',
    '--no-release-info',
    '--format',
    '$(SITE) $(RELEASE)',
  ]).catch((error: Error) => {
    throw new LabError('apt-get', error.message, 'run the lab on Debian 12 or 13');
  });
  const lines = targets.stdout.toString('utf8').trim().split('\n');
  const codename = /^VERSION_CODENAME=(\w+)/m.exec(await osRelease())?.[1] ?? '';
  const mirror =
    siteOf(lines, (release) => release === codename || release === 'stable') ??
    siteOf(lines, (release) => release.startsWith(`${codename}-`) && !release.includes('security'));
  if (mirror === undefined) {
    throw new LabError(
      'Debian mirror',
      `apt on this machine names none for ${codename || 'its release'}`,
      'add one to /etc/apt/sources.list, or set DEBIAN_MIRROR to its address',
    );
  }
  return mirror;
}

/** Installs those of `packages` that this machine does not have yet. Needs root only when one is missing. */
export async function ensureMachinePackages(packages: readonly string[]): Promise<void> {
  const missing: string[] = [];
  for (const name of packages) {
    if (!(await isInstalled(name))) {
      missing.push(name);
    }
  }
  if (missing.length > 0) {
    await installMachinePackages(missing);
  }
}

/** Installs `packages`, or their newest versions, with this machine's apt. Needs root. */
export async function installMachinePackages(packages: readonly string[]): Promise<void> {
  const names = packages.join(' ');
  if (process.getuid?.() !== 0) {
    throw new LabError(
      names,
      'not installed, and only root can install it',
      `run as root, or: apt-get install ${names}`,
    );
  }
  await step(`installing ${names}`, async () => {
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    // An update that fails (one source of several is down) still leaves lists to install from: let install decide.
    await runProgram('apt-get', ['-q', 'update'], { env });
    const install = await runProgram(
      'apt-get',
      ['-q', '-y', '--no-install-recommends', 'install', ...packages],
      { env },
    );
    if (install.status !== 0) {
      throw new LabError(names, install.stderr, `try: apt-get update && apt-get install ${names}`);
    }
  });
}

async function isInstalled(name: string): Promise<boolean> {
  const query = await runProgram('dpkg-query', ['--status', name]);
  return /^Status: .* installed$/m.test(query.stdout.toString('utf8'));
}

async function osRelease(): Promise<string> {
  return await readFile('/etc/os-release', 'utf8').catch(() => '');
}

function siteOf(lines: readonly string[], isWanted: (release: string) => boolean) {
  for (const line of lines) {
    const [site, release] = line.split(' ');
    if (site && release && /^(https?|file):/.test(site) && isWanted(release)) {
      return site;
    }
  }
  return undefined;
}
