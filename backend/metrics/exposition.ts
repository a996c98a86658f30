// A measurement as Prometheus reads it, by prom-client; with this process's own figures (memory, CPU time, event loop).

import {
  Counter,
  collectDefaultMetrics,
  Gauge,
  Histogram,
  type MetricType,
  Registry,
} from 'prom-client';
import { ACCESS_KINDS, LATENCY_BOUNDS, type Latencies } from './activity.ts';
import { FAMILIES, type Family, LATENCY, PREFIX } from './families.ts';
import type { Measurement } from './measurement.ts';

export class Exposition {
  readonly #registry = new Registry();
  #measurement: Measurement | undefined;

  constructor() {
    for (const family of FAMILIES) {
      this.#add(family);
    }
    new CountedHistogram(
      this.#registry,
      () => this.#measurement?.activity.latencies ?? NO_LATENCIES,
    );
    collectDefaultMetrics({ register: this.#registry });
  }

  get contentType(): string {
    return this.#registry.contentType;
  }

  /** The text of one scrape. */
  async text(measurement: Measurement): Promise<string> {
    this.#measurement = measurement;
    return this.#registry.metrics();
  }

  #add({ name, help, type, labels, samples }: Family): void {
    const values = () => (this.#measurement === undefined ? [] : samples(this.#measurement));
    const metric = {
      name: PREFIX + name,
      help,
      labelNames: labels,
      registers: [this.#registry],
      collect(this: Counter | Gauge) {
        this.reset();
        for (const [of, value] of values()) {
          this.inc(of, value);
        }
      },
    };
    if (type === 'counter') {
      new Counter(metric);
    } else {
      new Gauge(metric);
    }
  }
}

const NO_LATENCIES: ReadonlyMap<string, Latencies> = new Map();
const NOTHING: Latencies = { counts: LATENCY_BOUNDS.map(() => 0), sum: 0 };

/** A histogram whose buckets were counted elsewhere: prom-client itself takes one value at a time. */
class CountedHistogram extends Histogram<'kind' | 'le'> {
  readonly #latencies: () => ReadonlyMap<string, Latencies>;

  constructor(registry: Registry, latencies: () => ReadonlyMap<string, Latencies>) {
    super({
      name: PREFIX + LATENCY.name,
      help: LATENCY.help,
      labelNames: LATENCY.labels,
      buckets: [...LATENCY_BOUNDS],
      registers: [registry],
    });
    this.#latencies = latencies;
  }

  override async get(): ReturnType<Histogram<'kind' | 'le'>['get']> {
    const latencies = this.#latencies();
    const kinds = new Set<string>([...ACCESS_KINDS, ...latencies.keys()]);
    return {
      name: PREFIX + LATENCY.name,
      help: LATENCY.help,
      type: 'histogram' as unknown as MetricType,
      aggregator: 'sum',
      collect: () => {},
      values: [...kinds].flatMap((kind) => samplesOf(kind, latencies.get(kind) ?? NOTHING)),
    };
  }

  /** What the registry asks for, if it is there. */
  getForPromString(): ReturnType<Histogram<'kind' | 'le'>['get']> {
    return this.get();
  }
}

type HistogramSample = Awaited<ReturnType<Histogram<'kind' | 'le'>['get']>>['values'][number];

/** Each bucket counts what is below its bound, so all buckets before it as well. */
function samplesOf(kind: string, { counts, sum }: Latencies): HistogramSample[] {
  const name = PREFIX + LATENCY.name;
  let total = 0;
  const buckets = [...LATENCY_BOUNDS, '+Inf' as const].map((le, bucket): HistogramSample => {
    total += counts[bucket] ?? 0;
    return { labels: { le, kind }, value: total, metricName: `${name}_bucket` };
  });
  return [
    ...buckets,
    { labels: { kind }, value: sum, metricName: `${name}_sum` },
    { labels: { kind }, value: total, metricName: `${name}_count` },
  ];
}
