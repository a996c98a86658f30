// The shell scripts that run inside a guest: its init, a loader of modules, and the agent that runs commands for
// GuestVm. Written for busybox.
import { nameOf } from './modules.ts';

/** `load NAME [PARAMETER=VALUE …]`: inserts a module and what it depends on, unless it is there already. */
export const LOAD_SCRIPT = `#!/bin/sh
name=$(echo "$1" | tr - _)
shift
if ! [ -e "/modules/order/$name" ]; then
  echo "load: module $name is not in this guest's file system" >&2
  exit 1
fi
for module in $(cat "/modules/order/$name"); do
  grep -q "^$module " /proc/modules && continue
  if [ "$module" = "$name" ]; then
    insmod "/modules/$module.ko" "$@" || exit 1
  else
    insmod "/modules/$module.ko" || exit 1
  fi
done
`;

/**
 * Runs commands that come over the second serial port. Kernel messages go to the first one, so answers are never
 * torn; what comes in may lose bytes when the machine is busy, so its length is checked and its arrival told. Lines in:
 * "NEW" forgets what came, "+ BASE64" adds to the command, "RUN id seconds length" runs it. Lines out:
 * "READY boot-id", "GOT id" or "AGAIN id", "BEGIN id", base64 of what the command printed, "END id status".
 */
export const AGENT_SCRIPT = `#!/bin/sh
port=/dev/ttyAMA1
[ -e $port ] || port=/dev/ttyS1
stty -F $port raw -echo
exec 3<>$port
echo "READY $(cat /proc/sys/kernel/random/boot_id)" >&3
body=
last=
while read -r verb first second length <&3; do
  case $verb in
  NEW) body= ;;
  +) body=$body$first ;;
  RUN)
    if [ "\${#body}" != "$length" ]; then
      body=
      echo "AGAIN $first" >&3
      continue
    fi
    echo "GOT $first" >&3
    [ "$first" = "$last" ] && continue
    last=$first
    echo "$body" | base64 -d >/tmp/command
    body=
    timeout -k 1 "$second" sh /tmp/command </dev/null >/tmp/output 2>&1 3>&-
    status=$?
    {
      echo "BEGIN $first"
      base64 /tmp/output
      echo "END $first $status"
    } >&3
    rm -f /tmp/output
    ;;
  esac
done
`;

/**
 * `modprobe NAME [PARAMETER=VALUE …]` for a guest that has the kernel's whole module tree mounted: /lab/module-index says where
 * each is, and each says by itself what it depends on. The kernel calls it, too, for file systems (fs-NAME).
 */
export const MODPROBE_SCRIPT = `#!/bin/sh
while case $1 in -*) true ;; *) false ;; esac; do shift; done
name=$(echo "\${1#fs-}" | tr - _)
shift
grep -q "^$name " /proc/modules && exit 0
file=$(sed -n "s/^$name //p" /lab/module-index)
[ -n "$file" ] || { echo "modprobe: the kernel has no module $name" >&2; exit 1; }
object=/tmp/modprobe-$$-$name.ko
case $file in
*.xz) xzcat "/lib/modules/$(uname -r)/$file" >"$object" ;;
*.gz) zcat "/lib/modules/$(uname -r)/$file" >"$object" ;;
*) cp "/lib/modules/$(uname -r)/$file" "$object" ;;
esac || exit 1
for needed in $(tr '\\0' '\\n' <"$object" | sed -n 's/^depends=//p' | tr , ' '); do
  grep -q "^$needed " /proc/modules /lab/built-in || "$0" "$needed" || exit 1
done
insmod "$object" "$@"
status=$?
rm -f "$object"
exit $status
`;

/** What every guest does first: its file systems, its environment. */
export const MOUNTS = `export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/ TERM=dumb
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm /dev/hugepages
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
`;

/**
 * Init of a guest whose root is its initramfs: loads modules, runs the script, then the agent or what follows. The agent
 * is not process 1: that one gets SIGCHLD for every orphan (each timeout(1) leaves one), upon which busybox's `read`
 * forgets what it has of a line.
 */
export function initScript(requests: readonly string[], withAgent: boolean): string {
  const loads = requests.map((request) => {
    const [module = '', ...parameters] = request.split(' ');
    return `load ${[nameOf(module), ...parameters].join(' ')}\n`;
  });
  return `#!/bin/sh
# First program of the guest.
${MOUNTS}${loads.join('')}[ -e /lab/script ] && sh /lab/script
${withAgent ? 'sh /lab/agent' : 'poweroff -f'}
`;
}
