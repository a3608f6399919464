// The click map as clicks come in: its tables are fetched anew and put in place, and the page draws them on the mail.
"use strict";

const map = document.getElementById("map");
let fetching = false;
let stale = false;

async function refresh() {
  stale = true;
  if (fetching) return;
  fetching = true;
  try {
    while (stale) {
      stale = false;
      const shown = map.contentDocument;
      const answer = await fetch(map.src);
      // The page's own parser, whose policy lets the page's style be.
      const fresh = new shown.defaultView.DOMParser().parseFromString(await answer.text(), "text/html");
      for (const part of shown.querySelectorAll("[data-live]")) {
        part.replaceChildren(...fresh.getElementById(part.id).childNodes);
      }
      shown.dispatchEvent(new Event("redraw"));
    }
  } finally {
    fetching = false;
  }
}

map.addEventListener("load", refresh);
document.addEventListener("notification", refresh);
