// Status values: Status Code Type in bits 10:8, Status Code in bits 7:0. NVM Express 1.4, "Status Code".

export const Status = {
  success: 0x000,
  invalidOpcode: 0x001,
  invalidField: 0x002,
  dataTransferError: 0x004,
  internalError: 0x006,
  abortRequested: 0x007,
  abortedByQueueDeletion: 0x008,
  invalidNamespace: 0x00b,
  commandSequenceError: 0x00c,
  invalidPrpOffset: 0x013,
  lbaOutOfRange: 0x080,
  completionQueueInvalid: 0x100,
  invalidQueueIdentifier: 0x101,
  invalidQueueSize: 0x102,
  asynchronousEventRequestLimit: 0x105,
  invalidInterruptVector: 0x108,
  invalidLogPage: 0x109,
  invalidQueueDeletion: 0x10c,
  featureNotSaveable: 0x10d,
  featureNotChangeable: 0x10e,
  featureNotNamespaceSpecific: 0x10f,
  invalidControllerIdentifier: 0x11f,
  invalidSecondaryControllerState: 0x120,
  invalidResourceCount: 0x121,
  invalidResourceIdentifier: 0x122,
  writeFault: 0x280,
  unrecoveredReadError: 0x281,
  compareFailure: 0x285,
} as const;
export type Status = (typeof Status)[keyof typeof Status];

const RETRYABLE: ReadonlySet<Status> = new Set([
  Status.dataTransferError,
  Status.internalError,
  Status.abortRequested,
  Status.abortedByQueueDeletion,
]);

const DO_NOT_RETRY = 1 << 14;

/** As in a completion, with a Phase Tag of 0; Do Not Retry where the same command cannot succeed when it is sent again. */
export function statusField(status: Status): number {
  const isFinal = status !== Status.success && !RETRYABLE.has(status);
  return (status | (isFinal ? DO_NOT_RETRY : 0)) << 1;
}
