// What the standards call registers, from the names that the tables give them: `vfBar0` is "VF BAR 0".

/** Words that are not written with one capital letter. */
const WORDS: Readonly<Record<string, string>> = {
  aer: 'AER',
  ari: 'ARI',
  bar: 'BAR',
  dma: 'DMA',
  id: 'ID',
  msi: 'MSI',
  msix: 'MSI-X',
  pci: 'PCI',
  rom: 'ROM',
  tlp: 'TLP',
  vf: 'VF',
  vfs: 'VFs',
  cis: 'CIS',
};

/** Names that the standard writes as one word. */
const WHOLE: Readonly<Record<string, string>> = {
  numVfs: 'NumVFs',
  totalVfs: 'TotalVFs',
  initialVfs: 'InitialVFs',
};

/** A register's name for people: `systemPageSize` gives "System Page Size". */
export function titleOf(name: string): string {
  return (
    WHOLE[name] ??
    name
      .replace(/([a-z])([A-Z])/g, '$1 $2')
      .replace(/([A-Za-z])(\d)/g, '$1 $2')
      .split(' ')
      .map((word) => WORDS[word.toLowerCase()] ?? word.charAt(0).toUpperCase() + word.slice(1))
      .join(' ')
  );
}
