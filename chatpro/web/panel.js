// Draws the side panel's list of chats, and tells the script what was done to them.
//
// What a person does is shown at once, before the server has answered; so there are two sources, what the script sent last
// (`data`) and what was done since (`Acts`), and `wanted` lays the second over the first. Rows are kept by their chat's id and
// changed where they changed: a run of the script may come at any moment, and must not take away the word being typed, the
// menu that is open, or the focus. Titles are strangers' text: nodes and textContent, no HTML is ever parsed.

import { Acts } from "./acts.js";

const sheet = new CSSStyleSheet();
sheet.replaceSync(await (await fetch(new URL("panel.css", import.meta.url))).text());

const LONGEST = 60; // characters of a title, as chatpro/domain/chats.py keeps them
const GAP = 4, EDGE = 8; // px between the menu and its button, and the window's edge

// ---------------------------------------------------------------------------------------------------- nodes

const make = (tag, name, text) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text) node.textContent = text;
  return node;
};

const vector = (tag, attributes) => {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
};

/** Three dots, drawn: the sign for them is in none of our fonts. */
function dots() {
  const picture = vector("svg", { viewBox: "0 0 16 16", width: 16, height: 16, fill: "currentColor", "aria-hidden": "true" });
  picture.append(...[3, 8, 13].map((cx) => vector("circle", { cx, cy: 8, r: 1.4 })));
  return picture;
}

const button = (name) => {
  const node = make("button", name);
  node.type = "button";
  return node;
};

/** Moves a node that is on the page without the focus leaving it, where the browser can. */
function put(parent, node, before) {
  if (node.isConnected && parent.isConnected && parent.moveBefore) parent.moveBefore(node, before);
  else parent.insertBefore(node, before);
}

/** Puts the nodes into this order and touches only those that stand elsewhere. Others in the parent stay where they are. */
function arrange(parent, nodes) {
  const ours = new Set(nodes);
  let at = parent.firstChild;
  for (const node of nodes) {
    while (at && !ours.has(at)) at = at.nextSibling;
    if (node === at) at = at.nextSibling;
    else put(parent, node, at);
  }
}

const plain = (event) => !(event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);

// ---------------------------------------------------------------------------------------------------- a row

const SAID = { running: " being written", unread: " new answer", idle: "" }; // after the title, for those who hear it
const TOLD = { running: "An answer is being written", unread: "There is a new answer", idle: "" };

const pattern = (() => {
  const item = make("li", "row");
  const link = make("a");
  const title = make("span", "title");
  title.dir = "auto";
  const mark = make("i", "idle");
  mark.setAttribute("aria-hidden", "true");
  link.append(title, mark, make("span", "vh"), make("small"));
  const more = button("more");
  more.setAttribute("aria-haspopup", "menu");
  more.setAttribute("aria-expanded", "false");
  more.append(dots());
  item.append(link, more);
  return item;
})();

const rowOf = new WeakMap();

class Row {
  constructor(id) {
    this.id = id;
    this.item = pattern.cloneNode(true);
    [this.link, this.more] = this.item.children;
    [this.words, this.sign, this.said, this.soon] = this.link.children;
    this.mark = "idle";
    this.isOpen = false;
    rowOf.set(this.item, this);
  }

  show(address, title, note, soon, mark, isOpen) {
    this.note = note;
    const last = soon ? note : ""; // in its last days the row itself says so
    if (this.soon.textContent !== last) this.soon.textContent = last;
    if (this.address !== address) this.link.href = `${(this.address = address)}?chat=${encodeURIComponent(this.id)}`;
    if (this.title !== title) {
      this.words.textContent = this.title = title;
      this.words.removeAttribute("title");
      this.more.setAttribute("aria-label", `Menu for “${title}”`);
    }
    if (this.mark !== mark) {
      this.sign.className = this.mark = mark;
      this.sign.title = TOLD[mark];
      this.said.textContent = SAID[mark];
    }
    if (this.isOpen !== isOpen) {
      if ((this.isOpen = isOpen)) this.link.setAttribute("aria-current", "page");
      else this.link.removeAttribute("aria-current");
    }
  }

  /** A title that is cut off can be read whole. Measured when somebody is there, not for hundreds of rows at once. */
  whole() {
    if (this.words.scrollWidth > this.words.clientWidth) this.words.title = this.title;
    else this.words.removeAttribute("title");
  }
}

/** One heading and the chats under it. */
class Group {
  static count = 0;

  constructor(heading) {
    this.box = make("section");
    const title = make("h2", "", heading);
    title.id = `group-${(Group.count += 1)}`;
    this.list = make("ul");
    this.list.setAttribute("aria-labelledby", title.id);
    this.box.append(title, this.list);
  }
}

// ---------------------------------------------------------------------------------------------------- a row's menu

/** One menu for all rows. In the top layer, so that neither the panel's edge nor its scrolling cuts it off. */
class Menu {
  constructor(list) {
    this.list = list;
    this.row = null;
    this.box = make("div", "menu");
    this.box.popover = "manual";
    this.box.hidden = true;
    const items = make("div");
    items.setAttribute("role", "menu");
    this.items = [this.item("edit", "Rename", (row) => list.rename(row)), this.item("delete", "Delete", (row) => list.delete(row))];
    items.append(...this.items);
    this.note = make("p");
    this.note.id = "note";
    this.box.append((this.menu = items), this.note);
    this.box.addEventListener("keydown", (event) => this.key(event));
  }

  item(icon, words, chosen) {
    const node = button();
    node.setAttribute("role", "menuitem");
    node.tabIndex = -1;
    const sign = make("i", "icon", icon);
    sign.setAttribute("aria-hidden", "true");
    node.append(sign, make("span", "", words));
    node.addEventListener("click", () => {
      const { row } = this;
      this.close(true);
      chosen(row);
    });
    return node;
  }

  get focused() {
    return this.row !== null && this.box.contains(this.list.root.activeElement);
  }

  open(row, which = 0) {
    this.close(false);
    this.row = row;
    row.item.classList.add("chosen");
    row.more.setAttribute("aria-expanded", "true");
    this.box.hidden = false;
    this.box.showPopover?.();
    this.refresh();
    this.items.at(which).focus({ preventScroll: true });
    const { signal } = (this.stop = new AbortController());
    document.addEventListener("pointerdown", (event) => this.elsewhere(event), { capture: true, signal });
    document.addEventListener("scroll", () => this.place(), { capture: true, passive: true, signal });
    addEventListener("resize", () => this.place(), { signal });
  }

  close(focus) {
    if (!this.row) return;
    const { row } = this;
    if (focus) row.more.focus({ preventScroll: true });
    this.stop.abort();
    this.row = null;
    row.item.classList.remove("chosen");
    row.more.setAttribute("aria-expanded", "false");
    this.box.hidePopover?.();
    this.box.hidden = true;
  }

  /** What may change while the menu is open. */
  refresh() {
    const { note } = this.row;
    this.menu.setAttribute("aria-label", this.row.more.getAttribute("aria-label"));
    if (this.note.textContent !== note) this.note.textContent = note;
    this.note.hidden = !note;
    if (note) this.menu.setAttribute("aria-describedby", "note");
    else this.menu.removeAttribute("aria-describedby");
    this.place();
  }

  /** Under its button, or above it where there is no room below; never beyond the window. */
  place() {
    const at = this.row.more.getBoundingClientRect();
    if (at.bottom < 0 || at.top > innerHeight) return this.close(true);
    const { offsetWidth: width, offsetHeight: height } = this.box;
    const below = at.bottom + GAP + height <= innerHeight - EDGE;
    this.box.style.left = `${Math.max(EDGE, Math.min(at.left, innerWidth - EDGE - width))}px`;
    this.box.style.top = `${Math.max(EDGE, below ? at.bottom + GAP : at.top - GAP - height)}px`;
  }

  elsewhere(event) {
    const path = event.composedPath();
    if (!path.includes(this.box) && !path.includes(this.row.more)) this.close(false);
  }

  key(event) {
    const at = this.items.indexOf(this.list.root.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: -1 }[event.key];
    if (to !== undefined) this.items.at(to % this.items.length).focus({ preventScroll: true });
    else if (event.key === "Escape") this.close(true);
    else if (event.key === "Tab") return this.close(true); // and on from the button, as if the menu had not been
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

// ---------------------------------------------------------------------------------------------------- the list

class List {
  constructor(root) {
    this.root = root;
    this.rows = new Map();
    this.groups = new Map();
    this.order = []; // the rows as they stand
    this.marks = new Map(); // what the page said of chats since the last data
    this.naming = null;
    this.nav = make("nav");
    this.nav.setAttribute("aria-label", "Chats");
    this.form = make("form");
    this.form.setAttribute("role", "search");
    this.field = make("input");
    Object.assign(this.field, { type: "search", placeholder: "Search your chats", maxLength: 1000, autocomplete: "off", enterKeyHint: "search" });
    this.field.setAttribute("aria-label", "Search your chats");
    this.form.append(this.field);
    this.form.addEventListener("submit", (event) => this.search(event));
    this.none = make("p", "none", "Your chats will stand here.");
    this.none.tabIndex = -1; // the focus goes there with the last chat
    this.all = make("a", "all");
    this.body = make("div");
    this.nav.append(this.body, this.none, this.all);
    this.menu = new Menu(this);
    root.append(this.form, this.nav, this.menu.box);
    root.adoptedStyleSheets = [sheet];
    this.nav.addEventListener("click", (event) => this.click(event));
    this.nav.addEventListener("keydown", (event) => this.key(event));
    for (const kind of ["pointerover", "focusin"]) this.nav.addEventListener(kind, (event) => rowAt(event.target)?.whole());
    this.onChat = ({ detail }) => this.hear(detail ?? {});
    document.addEventListener("chatpro:chat", this.onChat);
  }

  leave() {
    this.menu.close(false);
    if (this.naming) this.acts.left = { id: this.naming.row.id, ...inputOf(this.naming.input), at: Date.now() };
    document.removeEventListener("chatpro:chat", this.onChat);
    if (this.acts.list === this) clearTimeout(this.acts.timer);
  }

  show(data, trigger) {
    this.trigger = trigger;
    if (data === this.data) return; // another theme, say: no news
    this.data = data;
    this.marks.clear();
    this.acts = Acts.on(this, data);
    this.acts.heard(data);
    this.draw();
    this.goOn();
  }

  /** Where an element comes or goes above the list, Streamlit makes the list anew: a renaming goes on in the new one. */
  goOn() {
    const { left } = this.acts;
    const row = left && Date.now() - left.at < 5_000 && this.rows.get(left.id);
    this.acts.left = null;
    if (!row) return;
    this.rename(row);
    this.naming.input.value = left.value;
    this.naming.input.setSelectionRange(left.from, left.to);
  }

  /** The page knows of an answer before the next run does. */
  hear({ chat, is }) {
    if (!Object.hasOwn(SAID, is)) return;
    this.marks.set(chat, is === "unread" && chat === this.openId ? "idle" : is);
    this.draw();
  }

  // -------------------------------------------------------------------------------------------------- drawing

  /** What the script sent last, and over it what was done since. */
  wanted() {
    const titles = new Map(), gone = new Set(), groups = [];
    let { open } = this.data;
    for (const act of this.acts.open) {
      if (act.is === "open") open = act.id;
      if (act.is === "rename") titles.set(act.id, act.title);
      if (act.is === "delete") gone.add(act.id);
    }
    for (const { heading, chats } of this.data.groups) {
      const left = chats.filter(({ id }) => !gone.has(id));
      if (left.length) groups.push({ heading, chats: left });
    }
    return { open, groups, titles };
  }

  draw() {
    const held = this.hold();
    const { open, groups, titles } = this.wanted();
    this.openId = open;
    const wanted = groups.map(({ heading, chats }) => {
      const rows = chats.map((chat) => this.row(chat, titles.get(chat.id) ?? chat.title, chat.id === open));
      return { group: this.group(heading), rows };
    });
    this.order = wanted.flatMap(({ rows }) => rows);
    this.dropRows();
    arrange(this.body, wanted.map(({ group }) => group.box));
    for (const { group, rows } of wanted) arrange(group.list, rows.map((row) => row.item));
    this.dropGroups(new Set(wanted.map(({ group }) => group)));
    this.foot();
    this.resume(held);
    if (this.menu.row) this.menu.refresh();
  }

  row({ id, note, soon, running, unread }, title, isOpen) {
    let row = this.rows.get(id);
    if (!row) this.rows.set(id, (row = new Row(id)));
    const mark = this.marks.get(id) ?? (running ? "running" : unread ? "unread" : "idle");
    row.show(this.data.address, title, note, soon, isOpen && mark === "unread" ? "idle" : mark, isOpen);
    return row;
  }

  group(heading) {
    let group = this.groups.get(heading);
    if (!group) this.groups.set(heading, (group = new Group(heading)));
    return group;
  }

  /** Before anything is arranged, so that what stays need not be moved around it. */
  dropRows() {
    const left = new Set(this.order);
    for (const [id, row] of this.rows) {
      if (left.has(row)) continue;
      if (this.naming?.row === row) this.naming = null;
      if (this.menu.row === row) this.menu.close(false);
      row.item.remove();
      this.rows.delete(id);
    }
  }

  /** After everything is arranged: a group's last row may have gone to another one. */
  dropGroups(left) {
    for (const [heading, group] of this.groups) {
      if (left.has(group)) continue;
      group.box.remove();
      this.groups.delete(heading);
    }
  }

  foot() {
    const { address, more } = this.data;
    const count = this.order.length + more;
    this.form.hidden = !count; // nothing to search, and what is being typed there is not to vanish: it stays where it is
    this.none.hidden = count > 0;
    this.all.hidden = more < 1;
    const words = `All ${count.toLocaleString("en")} chats`;
    if (this.all.textContent !== words) this.all.textContent = words;
    if (this.all.getAttribute("href") !== `${address}history`) this.all.setAttribute("href", `${address}history`);
  }

  /** Where the focus is, when it is on a row. */
  hold() {
    const active = this.root.activeElement;
    const row = this.menu.focused ? this.menu.row : rowAt(active);
    return row && { row, active, order: this.order, ...inputOf(active) };
  }

  /** And there again; from a row that has gone to the next one. */
  resume(held) {
    if (!held) return;
    const { row, active, order, from, to } = held;
    if (this.rows.get(row.id) !== row) {
      const at = order.indexOf(row);
      const next = [...order.slice(at + 1), ...order.slice(0, at).reverse()].find((other) => this.rows.get(other.id) === other);
      (next?.link ?? (this.all.hidden ? this.none : this.all)).focus();
    } else if (this.root.activeElement !== active) {
      active.focus({ preventScroll: true });
      if (active === this.naming?.input) active.setSelectionRange(from, to);
    }
  }

  // -------------------------------------------------------------------------------------------------- what a person does

  do(act) {
    this.acts.add(act);
    this.draw();
  }

  click(event) {
    const row = rowAt(event.target);
    if (row?.more.contains(event.target)) return this.menu.row === row ? this.menu.close(true) : this.menu.open(row);
    const link = event.target.closest("a");
    if (!link || !plain(event)) return; // a new tab or window is the browser's to open
    event.preventDefault();
    if (link === this.all) this.do({ is: "all" });
    else this.open(row);
    uncover(this.root.host);
  }

  key(event) {
    const row = rowAt(event.target);
    if (!row || !plain(event)) return;
    const at = this.order.indexOf(row);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: this.order.length - 1 }[event.key];
    if (row.more === event.target && /^Arrow(Down|Up)$/.test(event.key)) this.menu.open(row, event.key === "ArrowUp" ? -1 : 0);
    else if (event.key === "F2") this.rename(row);
    else if (event.key === "Delete") event.repeat || this.delete(row); // one held key is one chat
    else if (to !== undefined) this.order[to]?.link.focus();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  open(row) {
    if (row.mark === "unread") this.marks.set(row.id, "idle"); // also when the next one is opened before this one's run
    if (row.id !== this.openId) this.do({ is: "open", id: row.id });
  }

  search(event) {
    event.preventDefault();
    const words = this.field.value.trim();
    if (!words) return;
    this.do({ is: "search", words });
    uncover(this.root.host);
  }

  delete(row) {
    this.do({ is: "delete", id: row.id });
  }

  rename(row) {
    this.named(true, false);
    const input = make("input");
    input.value = row.title;
    input.maxLength = LONGEST;
    input.dir = "auto";
    input.autocomplete = "off";
    input.enterKeyHint = "done";
    input.setAttribute("aria-label", "New title");
    input.addEventListener("keydown", (event) => this.namingKey(event));
    input.addEventListener("blur", () => queueMicrotask(() => this.blurred(input)));
    this.naming = { row, input, before: row.title };
    row.item.classList.add("naming");
    row.link.hidden = true;
    row.item.prepend(input);
    input.setSelectionRange(0, 0); // so that its beginning is in sight
    input.focus();
    input.select();
  }

  /** Not when the focus is back already, as after a move, or will be: when another window is in front, or the list is made anew. */
  blurred(input) {
    if (this.naming?.input === input && this.root.activeElement !== input && this.root.host.isConnected) this.named(true, false);
  }

  namingKey(event) {
    event.stopPropagation(); // here Delete deletes a letter, not a chat
    if (event.isComposing) return; // this Enter chooses a word of an input method
    if (event.key === "Enter") this.named(true, true);
    else if (event.key === "Escape") this.named(false, true);
    else return;
    event.preventDefault();
  }

  named(save, focus) {
    if (!this.naming) return;
    const { row, input, before } = this.naming;
    this.naming = null;
    const title = input.value.trim().replace(/\s+/g, " ");
    row.item.classList.remove("naming");
    row.link.hidden = false;
    if (focus) row.link.focus({ preventScroll: true });
    input.remove();
    if (save && title && title !== before) this.do({ is: "rename", id: row.id, title });
  }
}

const inputOf = ({ value, selectionStart, selectionEnd }) => ({ value, from: selectionStart, to: selectionEnd });
const rowAt = (node) => rowOf.get(node?.closest(".row"));

/** On a phone the panel lies over the page, and whoever chose a chat wants to see it. Streamlit makes room for its own links only. */
function uncover(host) {
  if (!matchMedia("(max-width: 768px)").matches) return;
  host.closest('[data-testid="stSidebar"]')?.querySelector('[data-testid="stSidebarCollapseButton"] button')?.click();
}

const lists = new WeakMap();

export default function ({ parentElement, data, setTriggerValue }) {
  let list = lists.get(parentElement);
  if (!list) lists.set(parentElement, (list = new List(parentElement)));
  list.show(data, setTriggerValue);
  return () => {
    if (parentElement.host.isConnected) return; // Streamlit also cleans up after a call that the next one overtook
    lists.delete(parentElement);
    list.leave();
  };
}
