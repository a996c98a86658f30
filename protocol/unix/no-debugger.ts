// Imported for its effect: SIGUSR1 does not open Node's debugger, a port by which any local user could take this process
// over.
process.on('SIGUSR1', () => {});
