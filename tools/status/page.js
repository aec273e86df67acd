// Brings the page up to date in place, so that neither the focus nor the scroll position is lost.
"use strict";

const INTERVAL_MS = 5000;

function show(text) {
  const status = document.getElementById("refresh");
  if (status.textContent !== text) status.textContent = text;
}

// Names the element with the focus so that it can be found in the new content.
function focused() {
  const element = document.activeElement;
  if (!element || !document.getElementById("content").contains(element)) return null;
  const section = element.closest("section[id]");
  const same = section ? [...section.querySelectorAll(element.tagName)] : [];
  return { id: section?.id, href: element.getAttribute("href"), tag: element.tagName, at: same.indexOf(element) };
}

function focusAgain(was) {
  const section = was?.id ? document.getElementById(was.id) : null;
  if (!section) return;
  const same = [...section.querySelectorAll(was.tag)];
  const element = same.find((one) => one.getAttribute("href") === was.href) ?? same[was.at];
  element?.focus({ preventScroll: true });
}

function update(page) {
  const now = document.getElementById("content");
  const next = page.getElementById("content");
  const names = (main) => [...main.children].map((section) => section.id).join();
  const was = focused();
  if (names(now) !== names(next)) {
    now.replaceChildren(...next.childNodes);
  } else {
    for (const section of [...next.children]) {
      const old = document.getElementById(section.id);
      if (old.outerHTML !== section.outerHTML) old.replaceWith(section);
    }
  }
  if (was && !now.contains(document.activeElement)) focusAgain(was);
  document.getElementById("moment").replaceChildren(...page.getElementById("moment").childNodes);
  document.title = page.title;
}

async function refresh() {
  if (document.hidden || getSelection()?.toString()) return;
  const headers = { Accept: "text/html" };
  try {
    const answer = await fetch(location.href, { headers, cache: "no-store" });
    if (!answer.ok && answer.status !== 404) throw new Error(`it answered ${answer.status}`);
    update(new DOMParser().parseFromString(await answer.text(), "text/html"));
    show("");
  } catch (error) {
    show(`This page is old: the status service cannot be reached (${error.message}).`);
  }
}

setInterval(refresh, INTERVAL_MS);
document.addEventListener("visibilitychange", refresh);
