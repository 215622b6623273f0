// Keeps the page fresh: fetches it again and puts in only the parts that differ, so that what a reader has
// focused, opened or selected elsewhere stays. Without this script the page is complete but still.
"use strict";

const PERIOD_MS = 3000;
let answeredAt = Date.now();

function strips(part) {
  return Array.from(part.querySelectorAll("[role=img]"), (strip) => strip.getAttribute("aria-label")).join();
}

function replace(now, fresh) {
  if (now.outerHTML.replace(/ (changed|open="")/g, "") === fresh.outerHTML) return;
  const focused = now.contains(document.activeElement);
  if (now.open) fresh.open = true;
  if (now.classList.contains("gpu") && strips(now) !== strips(fresh)) fresh.classList.add("changed");
  now.replaceWith(fresh);
  if (focused) fresh.querySelector("summary, a")?.focus();
}

function renew(html) {
  const fresh = new DOMParser().parseFromString(html, "text/html");
  const parts = Array.from(document.querySelectorAll("[data-part]"));
  const others = Array.from(fresh.querySelectorAll("[data-part]"));
  const names = (list) => list.map((part) => part.dataset.part).join();
  if (names(parts) !== names(others)) {
    document.querySelector("main").replaceWith(fresh.querySelector("main"));
    return;
  }
  parts.forEach((part, index) => replace(part, others[index]));
}

function silence(text) {
  const banner = document.getElementById("silent");
  banner.hidden = text === null;
  if (text !== null && banner.textContent !== text) banner.textContent = text;
}

async function refresh() {
  if (!document.hidden) {
    try {
      const answer = await fetch("/", { cache: "no-store", signal: AbortSignal.timeout(PERIOD_MS * 2) });
      if (!answer.ok) throw new Error(answer.statusText);
      renew(await answer.text());
      answeredAt = Date.now();
      silence(null);
    } catch {
      const seconds = Math.round((Date.now() - answeredAt) / 1000);
      silence(`The daemon has not answered for ${seconds} s. What you see is from before.`);
    }
  }
  setTimeout(refresh, PERIOD_MS);
}

setTimeout(refresh, PERIOD_MS);
