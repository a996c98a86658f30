import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { HotplugEndpoint } from '../../../backend/hotplug/endpoint.ts';
import { Errno, WireError } from '../../../protocol/errno.ts';
import { HotplugCommand } from '../../../protocol/hotplug/commands.ts';
import { Command } from '../../../protocol/vfio-user/commands.ts';
import { type Capabilities, encodeVersion } from '../../../protocol/vfio-user/version.ts';
import { AS_QEMU } from '../device/device-under-test.ts';
import { SessionUnderTest } from './session-under-test.ts';

let its: SessionUnderTest;

beforeEach(() => {
  its = new SessionUnderTest();
});
afterEach(() => {
  its.close();
});

describe('what a connection may ask', () => {
  let attached: string[];
  let hotplug: HotplugEndpoint;
  const AS_GLUE: Capabilities = { sriov_hotplug: { version: 1, role: 'glue' } };
  const AS_VMM: Capabilities = { sriov_hotplug: { version: 1, role: 'vmm' } };
  const AS_OBSERVER: Capabilities = { sriov_status: { version: 1 } };

  beforeEach(() => {
    attached = [];
    hotplug = {
      attach: (_session, role) => {
        if (attached.length > 0) {
          throw new WireError('EBUSY', 'somebody has it');
        }
        attached.push(role);
      },
      detach: () => attached.pop(),
      vfsTrapped: () => {},
      slots: () => [],
    };
    its.open({ hotplug, status: () => '{"phase":"disabled"}' });
  });

  function negotiate(capabilities: Capabilities): number {
    const body = [...encodeVersion(0, 1, capabilities)];
    its.send(Command.version, { body });
    return its.errorsSent()[0]!;
  }

  function ask(command: number): number {
    its.send(command, { body: [16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] });
    return its.errorsSent()[0]!;
  }

  it('is VERSION, before anything else', () => {
    expect(ask(Command.deviceGetInfo)).toBe(Errno.EINVAL);
    expect(negotiate({})).toBe(0);
    expect(ask(Command.deviceGetInfo)).toBe(0);
  });

  it('is VERSION once', () => {
    negotiate({});
    expect(negotiate(AS_GLUE)).not.toBe(0);
    expect(its.session.role).toBe('device');
    expect(attached).toEqual([]);
    expect(ask(Command.deviceGetInfo)).toBe(0);
  });

  it('of a glue is its own business alone', () => {
    expect(negotiate(AS_GLUE)).toBe(0);
    expect(its.device.pf.attached).toBe(false);
    expect(ask(Command.deviceGetInfo)).toBe(Errno.EPERM);
    expect(ask(HotplugCommand.getStatus)).toBe(Errno.EPERM);
  });

  it('of an observer is the status', () => {
    expect(negotiate(AS_OBSERVER)).toBe(0);
    expect(its.device.pf.attached).toBe(false);
    expect(ask(Command.deviceReset)).toBe(Errno.EPERM);
    its.send(HotplugCommand.getStatus);
    expect(new TextDecoder().decode(its.connection.takeSent()[0]!.body)).toBe(
      '{"phase":"disabled"}',
    );
  });

  it('of a VMM with hot-plug is the device', () => {
    expect(negotiate(AS_VMM)).toBe(0);
    expect(its.device.pf.attached).toBe(true);
    expect(attached).toEqual(['vmm']);
    expect(ask(Command.deviceGetInfo)).toBe(0);
  });

  it('is nothing yet after a VERSION that was refused, and can be proposed anew without hot-plug', () => {
    attached.push('somebody else');
    expect(negotiate(AS_GLUE)).toBe(Errno.EBUSY);
    expect(negotiate({})).toBe(0);
    expect(its.session.role).toBe('device');
    expect(ask(Command.deviceGetInfo)).toBe(0);
  });

  it('gives the device back where hot-plug is refused', () => {
    attached.push('somebody else');
    expect(negotiate(AS_VMM)).toBe(Errno.EBUSY);
    expect(its.device.pf.attached).toBe(false);
  });

  it('ends with the connection: hot-plug and device are free again', () => {
    negotiate(AS_VMM);
    its.session.disconnected();
    expect(attached).toEqual([]);
    expect(its.device.pf.attached).toBe(false);
  });

  it('that comes or goes as a bystander touches nothing of the device', () => {
    its.device.pf.attach(AS_QEMU);
    const { cleared } = its.device;
    negotiate(AS_OBSERVER);
    its.session.disconnected();
    expect(its.device.cleared).toBe(cleared);
    expect(its.device.pf.attached).toBe(true);
  });
});
