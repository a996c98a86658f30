// QEMU arguments as libvirt passes them on: the element <qemu:commandline> of a domain's XML. Pure.
import { UserError } from '../../protocol/user-error.ts';

/** Of libvirt's "QEMU driver", where it tells how to pass arguments through. */
const NAMESPACE = 'http://libvirt.org/schemas/domain/qemu/1.0';

const ENTITIES: Readonly<Record<string, string>> = {
  '&': '&amp;',
  '<': '&lt;',
  '>': '&gt;',
  '"': '&quot;',
  "'": '&apos;',
};

/** The element, with a line for each argument. @throws UserError where one has characters that XML has no way to write */
export function libvirtFragment(args: readonly string[]): string {
  const lines = args.map((argument) => `  <qemu:arg value="${escaped(argument)}"/>\n`);
  return `<qemu:commandline xmlns:qemu="${NAMESPACE}">\n${lines.join('')}</qemu:commandline>\n`;
}

function escaped(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: XML 1.0 has none of them
  if (/[\x00-\x1f\x7f\ufffe\uffff]/.test(text)) {
    throw new UserError(
      `${JSON.stringify(text)}: XML cannot hold it`,
      'use paths without control characters',
    );
  }
  return text.replace(/[&<>"']/g, (mark) => ENTITIES[mark]!);
}
