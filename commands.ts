// The subcommands: name, line of help, and where each is made. The executable, man pages and completion read it.
import type { Command } from 'commander';

/** How the program is called. */
export const PROGRAM = 'vfio-user-sriov';

export interface Subcommand {
  /** Its line in the help of the program. */
  readonly summary: string;
  /** Loads the module that makes it: on demand, because a backend should be ready at once. */
  readonly load: () => Promise<Command>;
  /** Added to what is said of a mistake in its command line. */
  readonly hint?: string;
}

export const COMMANDS: Readonly<Record<string, Subcommand>> = {
  serve: {
    summary: 'serves a PF to one VM',
    load: async () => (await import('./backend/commands/serve.ts')).serveCommand(),
  },
  status: {
    summary: 'shows what a running backend is doing',
    load: async () => (await import('./vmm-glue/commands/status.ts')).statusCommand(),
  },
  probe: {
    summary: 'looks at a PF and its VFs',
    load: async () => (await import('./backend/commands/probe.ts')).probeCommand(),
  },
  profile: {
    summary: 'makes a profile of a card from what lspci printed',
    load: async () => (await import('./backend/commands/profile.ts')).profileCommand(),
  },
  prepare: {
    summary: 'gets a PF ready to be served (root)',
    load: async () => (await import('./backend/commands/prepare.ts')).prepareCommand(),
  },
  release: {
    summary: 'undoes prepare (root)',
    load: async () => (await import('./backend/commands/release.ts')).releaseCommand(),
  },
  privileged: {
    summary: 'opens VFs and writes sriov_numvfs for a backend without root (root)',
    load: async () => (await import('./backend/commands/privileged.ts')).privilegedCommand(),
  },
  doctor: {
    summary: 'checks this host',
    load: async () => (await import('./backend/commands/doctor.ts')).doctorCommand(),
  },
  report: {
    summary: 'writes one file for a bug report',
    load: async () => {
      const { allStatuses } = await import('./vmm-glue/commands/status.ts');
      return (await import('./backend/commands/report.ts')).reportCommand(allStatuses);
    },
  },
  qemu: {
    summary: 'runs a backend and a QEMU as one',
    load: async () => {
      const { serveOptions } = await import('./backend/commands/serve-options.ts');
      return (await import('./vmm-glue/commands/qemu.ts')).qemuCommand(serveOptions());
    },
    hint: 'the QEMU program and its arguments come after --',
  },
  'qemu-args': {
    summary: 'prints the arguments for a QEMU that you start',
    load: async () => (await import('./vmm-glue/commands/qemu-args.ts')).qemuArgsCommand(),
  },
  fault: {
    summary: 'has things go wrong in a running backend',
    load: async () => (await import('./vmm-glue/commands/fault.ts')).faultCommand(),
  },
  trace: {
    summary: 'shows what a driver did',
    load: async () => (await import('./vmm-glue/trace/commands/trace.ts')).traceCommand(),
  },
  'attach-qemu': {
    summary: 'plugs VFs into a QEMU that runs already',
    load: async () => (await import('./vmm-glue/commands/attach-qemu.ts')).attachQemuCommand(),
  },
  replay: {
    summary: 'plays a recorded guest against a backend',
    load: async () => (await import('./vmm-glue/trace/commands/replay.ts')).replayCommand(),
  },
};
