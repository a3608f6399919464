// The ways to look at a mail: each button shows what bears its name in the style sheet.
"use strict";

const pane = document.getElementById("pane");
const buttons = [...document.querySelectorAll(".views button")];

function show(view) {
  pane.dataset.view = view;
  for (const button of buttons) button.setAttribute("aria-pressed", String(button.dataset.view === view));
}

for (const button of buttons) button.addEventListener("click", () => show(button.dataset.view));
