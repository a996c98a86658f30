// A frame of `status --watch`: PF and VFs with their rates, what the driver did last, and against which rule, for a screen of
// so many columns and rows. Pure.
import type { DeviceStatus, FunctionStatus } from '../../protocol/hotplug/status.ts';
import { printable } from '../../protocol/printable.ts';
import { ruleOf } from '../trace/explain/rules.ts';
import { seconds } from '../trace/reading/lines.ts';
import type { DriverLook } from './driver-view.ts';

/** A status, and when it was given, in milliseconds of any clock. */
export interface Look {
  readonly at: number;
  readonly status: DeviceStatus;
  readonly driver: DriverLook;
}

export interface Screen {
  readonly columns: number;
  readonly rows: number;
}

/** With fewer there is no room for what was done last. */
const LEAST_ROWS = 12;

const HEAD = row('', 'state', 'messages', 'a second', 'interrupts', 'DMA windows');

/** The lines, none wider and no more than the screen; `before` is the look that rates are counted from. */
export function frame(now: Look, before: Look | undefined, { columns, rows }: Screen): string[] {
  const { status, driver } = now;
  const enabled = status.vfEnable ? status.numVfs : 0;
  const top = [
    `${status.device}  SR-IOV ${status.phase}  ${enabled} of ${status.totalVfs} VFs`,
    `hot-plug by ${status.hotplug ?? 'nobody'}, generation ${status.generation}${traceText(status)}`,
    ...(status.failure === null ? [] : [`last enable failed: ${status.failure}`]),
    ...status.quarantine.map(({ vfIndex, holder }) => `VF ${vfIndex} is held by ${holder}`),
    ...findingLines(driver),
    '',
    HEAD,
    functionRow('pf', status.pf.attached ? 'attached' : 'no VM', status.pf, rateOf(now, before)),
  ];
  const vfs = status.vfs
    .filter((vf) => vf.state !== 'absent' || vf.attached)
    .map((vf) => functionRow(`vf${vf.index}`, vf.state, vf, rateOf(now, before, vf.index)));
  const last = lastLines(driver, rows);
  return [...fitting([...top, ...vfs], rows - last.length), ...last].map((line) =>
    cut(printable(line), columns),
  );
}

/** In two, so that 80 columns hold them. */
function findingLines({ finding, problem }: DriverLook): string[] {
  if (problem !== undefined) {
    return [`what the driver does is not known: ${problem}`];
  }
  if (finding === undefined) {
    return [];
  }
  const { rule, time, text } = finding;
  return [`last finding, at ${seconds(time)}: ${ruleOf(rule).title}`, `  ${text}`];
}

/** At most a third of the screen. */
function lastLines({ lines = [] }: DriverLook, rows: number): string[] {
  const shown = lines.slice(-Math.min(lines.length, Math.max(0, Math.floor(rows / 3) - 1)));
  return rows < LEAST_ROWS || lines.length === 0 ? [] : ['', ...shown];
}

function traceText({ trace }: DeviceStatus): string {
  return trace?.on === true ? `; recording: ${trace.records} events` : '';
}

function functionRow(name: string, state: string, of: FunctionStatus, rate: string): string {
  const { messages, interrupts, dmaWindows } = of;
  return row(name, state, String(messages), rate, String(interrupts), String(dmaWindows));
}

function row(name: string, state: string, ...numbers: readonly string[]): string {
  const [messages = '', rate = '', interrupts = '', windows = ''] = numbers;
  return (
    `${name.padEnd(6)} ${state.padEnd(10)}${messages.padStart(13)}${rate.padStart(12)}` +
    `${interrupts.padStart(13)}${windows.padStart(13)}`
  );
}

/** Messages a second of the PF or of a VF; nothing where there is no look before, or its client is another by now. */
function rateOf(now: Look, before: Look | undefined, vfIndex?: number): string {
  const of = ({ status }: Look): FunctionStatus | undefined =>
    vfIndex === undefined ? status.pf : status.vfs.find(({ index }) => index === vfIndex);
  const old = before === undefined ? undefined : of(before);
  if (before === undefined || old === undefined) {
    return '';
  }
  const messages = of(now)!.messages - old.messages;
  const seconds = (now.at - before.at) / 1000;
  return messages < 0 || seconds <= 0 ? '' : (messages / seconds).toFixed(1);
}

/** As many lines as there are rows; the last one says how many are missing. */
function fitting(lines: readonly string[], rows: number): readonly string[] {
  if (lines.length <= rows) {
    return lines;
  }
  const kept = lines.slice(0, Math.max(0, rows - 1));
  return [...kept, `… and ${lines.length - kept.length} more lines`];
}

/** By characters, not by halves of them. */
function cut(line: string, columns: number): string {
  return [...line].slice(0, columns).join('');
}
