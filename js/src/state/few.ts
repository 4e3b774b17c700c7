// A map that remembers only its newest few entries.

export class Few<T> {
  private readonly held = new Map<string, T>();

  constructor(private readonly limit: number) {}

  get(name: string): T | undefined {
    return this.held.get(name);
  }

  set(name: string, value: T): void {
    this.held.delete(name);
    this.held.set(name, value);
    for (const old of this.held.keys()) {
      if (this.held.size <= this.limit) break;
      this.held.delete(old);
    }
  }

  clear(): void {
    this.held.clear();
  }
}
