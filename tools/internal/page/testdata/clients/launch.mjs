// A browser of Debian's. This Firefox can be told neither that it is a phone nor that it is dark.
import { chromium, firefox } from "playwright-core";

export async function launch({ DevTools, Firefox, Temp }) {
  if (!Firefox) return chromium.connectOverCDP(DevTools);
  process.env.TMPDIR = Temp;
  return firefox.launch({ channel: "moz-firefox", executablePath: Firefox });
}
