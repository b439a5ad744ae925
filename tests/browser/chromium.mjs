/** Headless Chromium beside a server of the site, the harness and the repository. */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { serve } from "../../www/serve.mjs";

export const ROOT = join(import.meta.dirname, "..", "..");
/** What the server serves the repository under. */
export const MOUNT = "/repository/";

const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
const FLAGS = [
  "--headless=new", "--no-sandbox", "--enable-unsafe-webgpu", "--disable-background-networking",
  "--no-first-run", "--disable-component-update", "--disable-sync",
];

/** The browser; without one it says so and ends the process with exit status 2. */
function program() {
  const found = process.env.CHROMIUM ?? BROWSERS.find(existsSync);
  if (found) return found;
  console.error("no Chromium: install it, or name it in CHROMIUM");
  process.exit(2);
}

/** Starts a browser. */
export function launch() {
  return chromium.launch({ executablePath: program(), args: FLAGS });
}

/** Starts a browser with an extension in it, and a profile of its own. */
export function launchWithExtension(extension, profile) {
  const flags = [`--disable-extensions-except=${extension}`, `--load-extension=${extension}`];
  const features = "--disable-features=DisableLoadExtensionCommandLineSwitch";
  const options = { executablePath: program(), args: [...FLAGS, features, ...flags], ignoreDefaultArgs: ["--disable-extensions"] };
  return chromium.launchPersistentContext(profile, options);
}

/** Starts both. */
export async function open() {
  const browser = await launch();
  const server = await serve({
    "/harness/": join(import.meta.dirname, "harness"),
    [MOUNT]: ROOT,
    "/": join(ROOT, "www", "dist"),
  });
  const close = async () => {
    await browser.close();
    server.close();
  };
  return { browser, origin: server.origin, close };
}
