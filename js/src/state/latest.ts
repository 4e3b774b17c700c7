// Pipelined scrubbing: while one answer is on its way only the newest further question is kept, so a drag shows
// as many frames as the kernel can make and never queues stale ones.

export class Latest<T> {
  private running = false;
  private next: { question: T } | null = null;
  private stopped = false;

  constructor(private readonly answer: (question: T) => Promise<void>) {}

  ask(question: T): void {
    if (this.stopped) return;
    this.next = { question };
    if (!this.running) void this.run();
  }

  stop(): void {
    this.stopped = true;
    this.next = null;
  }

  private async run(): Promise<void> {
    this.running = true;
    while (this.next) {
      const { question } = this.next;
      this.next = null;
      await this.answer(question);
    }
    this.running = false;
  }
}
