// What every part uses. Text goes in by textContent only.

function element(tag, className, parent) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (parent) parent.appendChild(made);
  return made;
}

// Elements are touched only where something differs: a selection, a focus or a screen reader's place survives.
function say(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

function name(target, className) {
  if (target.className !== className) target.className = className;
}

function attribute(target, key, value) {
  if (value) {
    if (target.getAttribute(key) !== value) target.setAttribute(key, value);
  } else if (target.hasAttribute(key)) target.removeAttribute(key);
}

// The part's one root element, made at the first drawing.
function root(parent, tag, className) {
  return [...parent.children].find((child) => child.classList.contains(className)) || element(tag, className, parent);
}

// As many children as there are items, each brought up to date; extra ones go.
function fill(parent, items, make, update) {
  while (parent.children.length > items.length) parent.lastElementChild.remove();
  items.forEach((item, place) => update(parent.children[place] || parent.appendChild(make()), item, place));
}

// To another address of these pages, without a new start of them: as if Back or Forward had led there.
function go(href) {
  history.pushState({}, "", href);
  dispatchEvent(new PopStateEvent("popstate"));
}

// A link that the page itself follows; with a modifier key the browser does, in another tab.
function follow(event) {
  if (event.button || event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  event.preventDefault();
  go(event.currentTarget.href);
}

function ago(since) {
  const seconds = Math.max(0, Math.floor((Date.now() - since) / 1000));
  if (seconds < 60) return seconds + " s ago";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min ago";
  if (seconds < 86400) return Math.floor(seconds / 3600) + " h ago";
  return Math.floor(seconds / 86400) + " d ago";
}
