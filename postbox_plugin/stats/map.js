// Draws over the mail what the table of links says, and leads from one to the other. The table is the truth: whoever
// changes it sends this document the event "redraw".
"use strict";

(() => {
  const sheets = [...document.querySelectorAll(".sheet")].map((sheet) => ({
    sheet,
    frame: sheet.querySelector("iframe"),
    marks: sheet.querySelector(".marks"),
  }));

  function made(name, className, text = "") {
    const element = document.createElement(name);
    element.className = className;
    element.textContent = text;
    return element;
  }

  // Where a link is: a box for each of its lines, or one around all that is in it.
  function boxes(link) {
    if (link.checkVisibility && !link.checkVisibility({ opacityProperty: true, visibilityProperty: true })) return [];
    const inner = [...link.querySelectorAll("img, table, td, div, p, h1, h2, h3, h4, h5, h6")];
    const rects = [link, ...inner].flatMap((one) => [...one.getClientRects()]).filter((one) => one.width > 1 && one.height > 1);
    return inner.length ? around(rects) : rects.map((one) => box(one.left, one.top, one.right, one.bottom));
  }

  function box(left, top, right, bottom) {
    return { left, top, right, bottom };
  }

  function around(rects) {
    if (!rects.length) return [];
    const all = (side, choose) => choose(...rects.map((one) => one[side]));
    return [box(all("left", Math.min), all("top", Math.min), all("right", Math.max), all("bottom", Math.max))];
  }

  // An area has no box of its own: it is a part of the picture that uses its map (HTML standard, 4.8.14).
  function areaBoxes(area) {
    const name = area.closest("map")?.name;
    const picture = name && [...area.ownerDocument.images].find((one) => one.useMap === `#${name}`);
    if (!picture) return [];
    const [whole] = boxes(picture);
    if (!whole) return [];
    const numbers = area.coords.split(",").map(Number);
    let points = numbers;
    if (area.shape === "circle") {
      const [x, y, radius] = numbers;
      points = [x - radius, y - radius, x + radius, y + radius];
    }
    const across = points.filter((_, place) => place % 2 === 0);
    const down = points.filter((_, place) => place % 2 === 1);
    if (points.length < 4 || points.some(Number.isNaN)) return [whole];
    const within = (value, low, high) => Math.min(Math.max(value, low), high);
    const horizontal = (value) => within(whole.left + value, whole.left, whole.right);
    const vertical = (value) => within(whole.top + value, whole.top, whole.bottom);
    return [box(horizontal(Math.min(...across)), vertical(Math.min(...down)), horizontal(Math.max(...across)), vertical(Math.max(...down)))];
  }

  // As tall as the mail, so that it need not scroll, and as wide as it insists on.
  function fit({ sheet, frame }) {
    const root = frame.contentDocument.documentElement;
    sheet.style.minHeight = `${sheet.offsetHeight}px`;
    sheet.style.width = "";
    frame.style.height = "0";
    sheet.style.width = `${Math.max(sheet.parentElement.clientWidth, root.scrollWidth)}px`;
    frame.style.height = `${root.scrollHeight}px`;
    sheet.style.minHeight = "";
  }

  function badge(row) {
    const { link, level, clicks, share, name } = row.dataset;
    const element = made("a", `badge level-${level}`, clicks);
    element.id = `mark-${link}`;
    element.href = `#link-${link}`;
    element.dataset.link = link;
    if (level !== "0") element.append(made("span", "", share));
    element.setAttribute("aria-label", `Link ${link}, ${name}: ${clicks} clicks, ${share}. Go to its row`);
    return element;
  }

  // At the upper right corner of the link, or wherever near it no other badge is.
  function place(element, rect, taken, width) {
    const [w, h] = [element.offsetWidth, element.offsetHeight];
    const right = rect.right - Math.min(w - 6, rect.right - rect.left);
    const candidates = [
      [right, rect.top - h + 2], [right, rect.bottom - 2], [rect.left - 4, rect.top - h + 2], [rect.left - 4, rect.bottom - 2],
      [rect.right - 4, (rect.top + rect.bottom - h) / 2], [rect.left - w + 4, (rect.top + rect.bottom - h) / 2],
    ].map(([x, y]) => [Math.min(Math.max(x, 2), width - w - 2), Math.max(y, 2)]);
    const free = ([x, y]) => taken.every((one) => x >= one.right + 2 || one.left >= x + w + 2 || y >= one.bottom + 2 || one.top >= y + h + 2);
    let spot = candidates.find(free);
    if (!spot) {
      spot = [...candidates[0]];
      while (!free(spot)) spot[1] += 4;
    }
    element.style.left = `${spot[0]}px`;
    element.style.top = `${spot[1]}px`;
    taken.push(box(spot[0], spot[1], spot[0] + w, spot[1] + h));
  }

  function draw() {
    const focused = document.activeElement?.closest(".marks") ? document.activeElement.id : "";
    for (const { sheet, frame, marks } of sheets) {
      marks.replaceChildren();
      const taken = [];
      const found = [];
      for (const row of document.querySelectorAll("#links tr[data-link]:not([data-untracked])")) {
        const link = frame.contentDocument.querySelector(`[data-postbox-link="${row.dataset.link}"]`);
        if (!link) continue;
        const rects = link.localName === "area" ? areaBoxes(link) : boxes(link);
        for (const rect of rects) {
          const outline = made("div", `box level-${row.dataset.level}`);
          outline.dataset.link = row.dataset.link;
          Object.assign(outline.style, {
            left: `${rect.left - 2}px`, top: `${rect.top - 2}px`,
            width: `${rect.right - rect.left + 4}px`, height: `${rect.bottom - rect.top + 4}px`,
          });
          marks.append(outline);
        }
        refer(row, rects.length > 0);
        if (rects.length) found.push([row, rects[0]]);
      }
      for (const [row, rect] of found) {
        const element = badge(row);
        marks.append(element);
        place(element, rect, taken, sheet.clientWidth);
      }
      sheet.classList.add("drawn");
    }
    if (focused) document.getElementById(focused)?.focus();
  }

  // In its row, the number of a link leads to its badge, if it has one.
  function refer(row, seen) {
    const number = row.dataset.link;
    row.querySelector(".unseen")?.remove();
    if (!seen) {
      row.querySelector(".lead").textContent = number;
      row.querySelector("th").append(made("span", "aside unseen", "not in view"));
      return;
    }
    const link = made("a", "", number);
    link.href = `#mark-${number}`;
    link.setAttribute("aria-label", `${number}: show in the mail`);
    row.querySelector(".lead").replaceChildren(link);
  }

  function point(event) {
    const number = event.target.closest?.("[data-link]")?.dataset.link;
    for (const element of document.querySelectorAll("[data-link]")) {
      element.classList.toggle("pointed", number !== undefined && element.dataset.link === number);
    }
  }

  function start(one) {
    document.querySelector(".scriptless")?.remove();
    // Nothing in it is to be reached, unless its links work.
    if (!document.body.classList.contains("working")) one.frame.tabIndex = -1;
    const update = () => {
      fit(one);
      draw();
    };
    update();
    // What changes its size after that: pictures that come late, and the window.
    let width = one.sheet.parentElement.clientWidth;
    new ResizeObserver(() => {
      if (one.sheet.parentElement.clientWidth === width) return;
      width = one.sheet.parentElement.clientWidth;
      update();
    }).observe(one.sheet.parentElement);
    for (const picture of one.frame.contentDocument.images) {
      if (!picture.complete) picture.addEventListener("load", update);
    }
  }

  for (const one of sheets) {
    one.frame.addEventListener("load", () => start(one));
    if (one.frame.contentDocument?.readyState === "complete" && one.frame.contentDocument.body?.childElementCount) start(one);
  }
  document.addEventListener("redraw", draw);
  for (const kind of ["mouseover", "focusin"]) document.addEventListener(kind, point);
})();
