// What every client's checks.mjs shares; the Python side of it is harness.py, which says more.
import { writeFileSync } from "node:fs";

export const NODE = process.env.CLIENTS_NODE;
export const KEY = process.env.CLIENTS_KEY;
export const MODEL = "script-model";
export const TINY = "mesh-tiny";
export const FOX = "The quick brown fox jumps over the lazy dog.";
export const DONE = "TOOLDONE: the tool returned fine!!";
export const ABANDONED = 3;
const LIMIT_MS = 120_000;

const checks = [];

/** Registers a check by its name. */
export function check(name, run) {
  checks.push({ name, run });
}

/** What the promise rejects with. */
export async function rejection(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error("it was not rejected");
}

/** Runs the checks one after the other and writes RESULTS.json. */
export async function main() {
  const results = [];
  for (const { name, run } of checks) {
    const begun = Date.now();
    const row = { check: name, status: "ok", detail: "" };
    let clock;
    const limit = new Promise((_, reject) => {
      clock = setTimeout(() => reject(new Error(`${LIMIT_MS / 1000} s have passed`)), LIMIT_MS);
    });
    try {
      await Promise.race([run(), limit]);
    } catch (error) {
      console.error(error);
      // The SDK's own errors hide the node's words in their cause.
      const said = [error, error?.cause, error?.lastError].filter(Boolean).map((e) => `${e.name}: ${e.message} ${e.responseBody ?? ""}`);
      row.status = "FAIL";
      row.detail = said.join(" / ").replace(/\s+/g, " ").trim();
    }
    clearTimeout(clock);
    results.push(row);
    console.log(`${row.status.padEnd(4)} ${name} ${((Date.now() - begun) / 1000).toFixed(1)} s ${row.detail}`);
  }
  writeFileSync(process.argv[2], JSON.stringify(results, null, 1));
  process.exit(0);
}
