// What the open functions of one device have in common, on the device thread: made for the first of them, gone with the last.

export class OpenDevices<T> {
  readonly #devices = new Map<string, { readonly common: T; functions: number }>();

  /** One more function of a device is open; `make` is called for the first one. */
  enter(device: string, make: () => T): T {
    let open = this.#devices.get(device);
    if (open === undefined) {
      open = { common: make(), functions: 0 };
      this.#devices.set(device, open);
    }
    open.functions++;
    return open.common;
  }

  /** One of them has gone; whether it was the last. */
  leave(device: string): boolean {
    const open = this.#devices.get(device)!;
    open.functions--;
    return open.functions === 0 && this.#devices.delete(device);
  }
}
