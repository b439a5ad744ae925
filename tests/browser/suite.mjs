/** A suite of tests that says what it does, one line a test, and counts. */

/** Thrown by a test that cannot be done here. */
export class Skip extends Error {}

export class Suite {
  #counts = { passed: 0, failed: 0, skipped: 0 };

  /** Does one test; a failure does not stop the others. */
  async test(name, body) {
    const began = performance.now();
    try {
      const note = await body();
      this.#counts.passed += 1;
      const seconds = ((performance.now() - began) / 1000).toFixed(1);
      console.log(`passed: ${name} (${seconds} s)${note ? `: ${note}` : ""}`);
    } catch (error) {
      if (error instanceof Skip) {
        this.#counts.skipped += 1;
        console.log(`skipped: ${name}: ${error.message}`);
      } else {
        this.#counts.failed += 1;
        console.log(`failed: ${name}\n    ${String(error?.stack ?? error).replaceAll("\n", "\n    ")}`);
      }
    }
  }

  /** Prints the counts as the last line; gives the exit status. */
  end() {
    const { passed, failed, skipped } = this.#counts;
    console.log(`${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ""}`);
    return failed > 0 ? 1 : 0;
  }
}
