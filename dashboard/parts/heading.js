export default function ({ data, parentElement }) {
  const box = root(parentElement, "header", "heading");
  if (!box.firstChild) {
    element("h1", "", box);
    element("p", "quiet", box);
  }
  const [title, line] = box.children;
  say(title, data.title);
  const tell = () => {
    const parts = [data.line];
    if (data.newest) parts.push("newest webhook " + ago(data.newest));
    if (data.behind) parts.push(data.behind);
    say(line, parts.join(" · "));
  };
  tell();
  // Whoever is sent the address sees the same days. In the place of the entry that is there: Back leads past it.
  const place = new URL(location.href);
  if (data.zone && !place.searchParams.has("zone")) {
    place.searchParams.set("zone", data.zone);
    history.replaceState(history.state, "", place);
  }
  if (data.lead && box.lead !== data.lead) go(data.lead);
  box.lead = data.lead;
  clearInterval(box.timer);
  box.timer = setInterval(() => (box.isConnected ? tell() : clearInterval(box.timer)), 1000);
}
