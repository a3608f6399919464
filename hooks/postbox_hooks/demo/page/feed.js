// The notifications, as they come in. Text goes in as text: a notification holds what strangers wrote.
"use strict";

const feed = document.getElementById("feed");
const empty = document.getElementById("empty");
const count = document.getElementById("count");
const connection = document.getElementById("connection");
const seen = new Set();

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function tags(label, given) {
  const line = element("div", "tags");
  for (const [key, values] of Object.entries(given)) {
    for (const value of values) line.append(element("span", "tag", `${key}: ${value}`));
  }
  if (line.childElementCount) line.setAttribute("aria-label", label);
  return line;
}

function entry(notification) {
  const { click, tracking } = notification;
  const item = element("li");
  const what = element("div", "what");
  const verdict = tracking.reason ? `${tracking.verdict}: ${tracking.reason}` : tracking.verdict;
  const time = element("time", "", new Date(click.timestamp).toLocaleTimeString());
  time.dateTime = click.timestamp;
  what.append(element("span", `verdict ${tracking.verdict}`, verdict), element("span", "", `link ${tracking.linkIndex}`), time);
  const details = element("details");
  details.append(element("summary", "", "The whole notification"), element("pre", "", JSON.stringify(notification, null, 2)));
  const address = element("code", "address");
  for (const piece of click.url.split(/(?<=[/?&])/)) address.append(piece, element("wbr"));
  item.append(what, address, tags("Link tags", click.linkTags), details);
  return item;
}

function connected(state) {
  connection.dataset.state = state;
  connection.textContent = state;
}

const events = new EventSource("/notifications");
events.addEventListener("open", () => connected("live"));
events.addEventListener("error", () => connected("connection lost"));
events.addEventListener("message", (event) => {
  const notification = JSON.parse(event.data);
  // Delivery is at least once, and a restarted demo counts its events anew: the eventId tells repetitions.
  if (seen.has(notification.eventId)) return;
  seen.add(notification.eventId);
  feed.prepend(entry(notification));
  count.textContent = seen.size;
  empty.hidden = true;
  document.dispatchEvent(new Event("notification"));
});
