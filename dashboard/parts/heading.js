function ago(since) {
  const seconds = Math.max(0, Math.floor((Date.now() - since) / 1000));
  if (seconds < 60) return seconds + " s ago";
  if (seconds < 3600) return Math.floor(seconds / 60) + " min ago";
  if (seconds < 86400) return Math.floor(seconds / 3600) + " h ago";
  return Math.floor(seconds / 86400) + " d ago";
}

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
  clearInterval(box.timer);
  box.timer = setInterval(() => (box.isConnected ? tell() : clearInterval(box.timer)), 1000);
}
