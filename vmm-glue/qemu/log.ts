// What the glue and the launcher tell a person: the part of pino's interface that they use.

/** Fields first, then the message, as pino has it. */
export interface Log {
  debug(fields: object, message: string): void;
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
  error(fields: object, message: string): void;
}
