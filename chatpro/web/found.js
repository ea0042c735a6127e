// Draws what a search found: chats, and under each the messages with the words marked, each a link to the chat at that message.
//
// Drawn anew with each search, since nothing in it is typed into; links are real ones, so that a new tab, the keyboard and a screen
// reader have them too. Texts are strangers': nodes and textContent, no HTML is ever parsed.

const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text) node.textContent = text;
  return node;
};
const plain = (event) => !(event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);

export class Found {
  /** `open` is told the chat and the message (or none) that was clicked, `look` another place among what was found. */
  constructor({ open, look }) {
    this.open = open;
    this.look = look;
    this.box = make("section", "found");
    this.box.setAttribute("aria-label", "What was found");
    this.said = make("p", "said");
    this.said.setAttribute("role", "status");
    this.said.tabIndex = -1;
    this.hint = make("p", "hint");
    this.list = make("ol", "chats");
    this.foot = make("nav", "foot");
    this.foot.setAttribute("aria-label", "More of what was found");
    this.newest = this.turn("Newest", () => "");
    this.older = this.turn("", () => this.data.older);
    this.foot.append(this.newest, this.older);
    this.box.append(this.said, this.hint, this.list, this.foot);
  }

  turn(text, to) {
    const node = make("button", "strong", text);
    node.type = "button";
    node.addEventListener("click", () => {
      this.turned = true;
      this.look(to());
    });
    return node;
  }

  /** What the script sent, or nothing where nobody searches. */
  show(data, { before }, address) {
    this.box.hidden = !data;
    const told = JSON.stringify([data, before, address]);
    if (!data || told === this.told) return (this.told = told);
    this.told = told;
    this.data = data;
    this.address = address;
    this.list.replaceChildren(...data.chats.map((chat) => this.chat(chat)));
    this.hint.textContent = data.hint;
    this.hint.hidden = !data.hint;
    this.newest.hidden = !before;
    this.older.hidden = !data.older;
    this.older.textContent = data.further;
    this.foot.hidden = !before && !data.older;
    this.said.textContent = "";
    requestAnimationFrame(() => (this.said.textContent = data.said)); // after it is there: only then is it read out
    if (!this.turned) return;
    this.turned = false;
    this.box.scrollIntoView({ block: "start" });
    this.said.focus({ preventScroll: true });
  }

  chat({ id, title, messages }) {
    const item = make("li");
    const heading = make("h2");
    const link = this.link(id, null);
    link.dir = "auto";
    link.append(...pieces(title));
    heading.append(link);
    const list = make("ul");
    list.append(...messages.map((message) => this.message(id, message)));
    item.append(heading);
    if (messages.length) item.append(list);
    return item;
  }

  message(chat, { id, who, when, text }) {
    const item = make("li");
    const link = this.link(chat, id);
    const head = make("span", "meta");
    head.append(make("b", "", who), make("span", "", when));
    const passage = make("span", "passage");
    passage.dir = "auto";
    passage.append(...pieces(text));
    link.append(head, passage);
    item.append(link);
    return item;
  }

  link(chat, message) {
    const link = make("a");
    link.href = `${this.address}chat?chat=${encodeURIComponent(chat)}${message ? `&at=${encodeURIComponent(message)}` : ""}`;
    link.addEventListener("click", (event) => {
      if (!plain(event)) return; // a new tab is the browser's to open
      event.preventDefault();
      this.open(chat, message);
    });
    return link;
  }
}

const pieces = (text) => text.map(([said, marked]) => make(marked ? "mark" : "span", "", said));
