// Draws the history page's table of chats, or what was found in them (found.js), and tells the script what was done to them.
//
// As in the panel, what was done is laid over what the script sent last, and rows are kept by their chat's id, so that a run takes
// away neither the focus nor a title being typed. What is ticked stays ticked from page to page. Titles are strangers' text: nodes
// and textContent, no HTML is ever parsed.

import { Acts } from "./acts.js";
import { Found } from "./found.js";

const sheet = new CSSStyleSheet();
sheet.replaceSync(await (await fetch(new URL("table.css", import.meta.url))).text());

const LONGEST = 60; // characters of a title, as chatpro/domain/chats.py keeps them
const MOST_TICKED = 500;
const COLUMNS = [
  ["title", "Chat"],
  ["messages", "Messages"],
  ["tokens", "Tokens"],
  ["last", "Last message"],
  ["goes", "Deleted on"],
];
const UP_FIRST = new Set(["title", "goes"]); // A to Z, and what goes next; everything else from the most

const make = (tag, name, text, more = {}) => {
  const node = document.createElement(tag);
  if (name) node.className = name;
  if (text) node.textContent = text;
  for (const [key, value] of Object.entries(more)) node.setAttribute(key, value);
  return node;
};
const button = (name, text, label) => make("button", name, text, { type: "button", ...(label ? { "aria-label": label, title: label } : {}) });
const icon = (name) => make("i", "icon", name, { "aria-hidden": "true" });
const write = (node, text) => node.textContent !== text && (node.textContent = text);
const plain = (event) => !(event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);
const counted = (n, word) => `${n.toLocaleString("en")} ${word}${n === 1 ? "" : "s"}`;

class Row {
  constructor(table, id) {
    this.table = table;
    this.id = id;
    // Roles are said as well: where a phone shows rows as blocks, they are no table to a browser any more.
    this.item = make("tr", "", "", { role: "row" });
    this.tick = make("input", "", "", { type: "checkbox" });
    this.link = make("a", "", "", { dir: "auto" });
    this.mark = make("small", "mark");
    this.name = make("th", "name", "", { scope: "row", role: "rowheader" });
    this.name.append(this.link, this.mark);
    this.cells = Object.fromEntries(["messages", "tokens", "last", "goes"].map((key) => [key, make("td", key, "", { role: "cell" })]));
    this.day = make("span");
    this.first = make("small");
    this.cells.goes.append(this.day, this.first);
    this.deeds = make("td", "deeds", "", { role: "cell" });
    this.buttons = ["edit", "download", "delete"].map((sign) => {
      const node = button("deed");
      node.append(icon(sign));
      this.deeds.append(node);
      return node;
    });
    const first = make("td", "tick", "", { role: "cell" });
    const target = make("label");
    target.append(this.tick);
    first.append(target);
    this.item.append(first, this.name, ...Object.values(this.cells), this.deeds);
    this.tick.addEventListener("change", () => table.ticked(this));
    this.link.addEventListener("click", (event) => {
      if (!plain(event)) return; // a new tab is the browser's to open
      event.preventDefault();
      table.do({ is: "open", id });
    });
    const [rename, take, remove] = this.buttons;
    rename.addEventListener("click", () => this.rename());
    take.addEventListener("click", () => table.do({ is: "export", ids: [id], form: table.form.value }));
    remove.addEventListener("click", () => table.delete([id]));
  }

  show(data, title, address) {
    this.title = title;
    write(this.link, title);
    const href = `${address}chat?chat=${encodeURIComponent(this.id)}`;
    if (this.link.getAttribute("href") !== href) this.link.setAttribute("href", href);
    write(this.mark, data.running ? "An answer is being written" : "");
    for (const key of ["messages", "tokens", "last"]) write(this.cells[key], data[key]);
    write(this.day, data.goes);
    write(this.first, data.first ? `first words ${data.first}` : "");
    this.cells.goes.classList.toggle("soon", data.soon);
    const labels = [`Rename “${title}”`, `Export “${title}”`, `Delete “${title}”`];
    this.buttons.forEach((node, at) => node.title !== labels[at] && (node.setAttribute("aria-label", labels[at]), (node.title = labels[at])));
    this.tick.setAttribute("aria-label", `Choose “${title}”`);
    this.tick.checked = this.table.chosen.has(this.id);
  }

  rename() {
    if (this.input) return;
    const input = make("input", "naming", "", { "aria-label": "New title", maxlength: LONGEST, dir: "auto", autocomplete: "off", enterkeyhint: "done" });
    input.value = this.title;
    this.input = input;
    this.link.hidden = true;
    this.name.prepend(input);
    input.focus();
    input.select();
    input.addEventListener("keydown", (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.preventDefault();
      this.named(event.key === "Enter", true);
    });
    input.addEventListener("blur", () => queueMicrotask(() => input.isConnected && this.table.root.activeElement !== input && this.named(true, false)));
  }

  named(save, focus) {
    const { input } = this;
    if (!input) return;
    this.input = null;
    const title = input.value.trim().replace(/\s+/g, " ");
    this.link.hidden = false;
    if (focus) this.link.focus({ preventScroll: true });
    input.remove();
    if (save && title && title !== this.title) this.table.do({ is: "rename", id: this.id, title });
  }
}

class Table {
  constructor(root) {
    this.root = root;
    this.rows = new Map();
    this.order = [];
    this.chosen = new Set();
    this.found = new Found({
      open: (id, at) => this.do({ is: "open", id, ...(at ? { at } : {}) }),
      look: (before) => this.look({ before }),
    });
    root.append(this.filter(), this.bar(), this.found.box, this.grid(), this.foot());
    root.adoptedStyleSheets = [sheet];
  }

  // -------------------------------------------------------------------------------------------------- its parts

  filter() {
    this.filters = make("form", "filter", "", { role: "search" });
    this.words = make("input", "words", "", { type: "search", placeholder: "Search your chats", maxlength: 1000, autocomplete: "off", enterkeyhint: "search", "aria-label": "Search your chats" });
    const days = ["From", "To"].map((text) => {
      const label = make("label", "", text);
      const input = make("input", "", "", { type: "date" });
      input.addEventListener("change", () => this.look({ begin: this.begin.value, end: this.end.value, page: 1 }));
      label.append(input);
      return [label, input];
    });
    [this.begin, this.end] = days.map(([, input]) => input);
    const sort = make("label", "sort", "Sort by");
    this.sort = make("select");
    for (const [key, text] of COLUMNS) for (const down of [false, true]) this.sort.append(make("option", "", `${text}, ${wayOf(key, down)}`, { value: `${key} ${down}` }));
    this.sort.addEventListener("change", () => {
      const [key, down] = this.sort.value.split(" ");
      this.look({ sort: key, descending: down === "true", page: 1 });
    });
    sort.append(this.sort);
    this.clear = button("quiet", "All days");
    this.clear.addEventListener("click", () => (this.look({ begin: "", end: "", page: 1 }), this.begin.focus()));
    this.leaving = button("quiet", "All chats");
    this.leaving.addEventListener("click", () => ((this.words.value = ""), this.search(""), this.words.focus()));
    this.ofTable = [...days.map(([label]) => label), sort];
    this.filters.append(this.words, this.leaving, ...days.map(([label]) => label), this.clear, sort);
    this.filters.addEventListener("submit", (event) => {
      event.preventDefault();
      this.search(this.words.value.trim());
    });
    this.words.addEventListener("search", () => this.words.value || this.search("")); // its own cross, or Escape
    return this.filters;
  }

  bar() {
    const bar = (this.bars = make("div", "bar", "", { role: "group", "aria-label": "What is chosen" }));
    this.count = make("span", "count", "", { role: "status" });
    const label = make("label", "", "as");
    this.form = make("select", "", "", { "aria-label": "Form of the export" });
    for (const [value, text] of [["markdown", "Markdown"], ["html", "HTML"], ["json", "JSON"]]) this.form.append(make("option", "", text, { value }));
    label.append(this.form);
    this.take = button("strong", "Export");
    this.remove = button("strong", "Delete");
    this.none = button("quiet", "Choose none");
    this.take.addEventListener("click", () => this.do({ is: "export", ids: [...this.chosen], form: this.form.value }));
    this.remove.addEventListener("click", () => this.delete([...this.chosen]));
    this.none.addEventListener("click", () => (this.chosen.clear(), this.draw(), this.all.focus()));
    bar.append(this.count, this.take, label, this.remove, this.none);
    return bar;
  }

  grid() {
    this.table = make("table", "", "", { role: "table" });
    this.table.append(make("caption", "vh", "Your chats"));
    const head = make("thead", "", "", { role: "rowgroup" });
    const line = make("tr", "", "", { role: "row" });
    const first = make("th", "tick", "", { scope: "col", role: "columnheader" });
    this.all = make("input", "", "", { type: "checkbox", "aria-label": "Choose all on this page" });
    this.all.addEventListener("change", () => {
      for (const row of this.order) this.all.checked ? this.choose(row.id) : this.chosen.delete(row.id);
      this.draw();
    });
    const target = make("label");
    target.append(this.all);
    first.append(target);
    this.heads = COLUMNS.map(([key, text]) => {
      const cell = make("th", key, "", { scope: "col", role: "columnheader" });
      const node = button("", text);
      node.append(icon(""));
      node.addEventListener("click", () => {
        const { sort, descending } = this.looked;
        this.look({ sort: key, descending: sort === key ? !descending : !UP_FIRST.has(key), page: 1 });
      });
      cell.append(node);
      return cell;
    });
    const last = make("th", "deeds", "", { scope: "col", role: "columnheader" });
    last.append(make("span", "vh", "What can be done"));
    line.append(first, ...this.heads, last);
    head.append(line);
    this.body = make("tbody", "", "", { role: "rowgroup" });
    this.table.append(head, this.body);
    this.empty = make("p", "empty", "No chat has its last message on these days.", { tabindex: "-1" });
    const box = (this.box = make("div", "grid"));
    box.append(this.table, this.empty);
    return box;
  }

  foot() {
    const foot = (this.feet = make("nav", "foot", "", { "aria-label": "Pages of the table" }));
    this.place = make("span", "", "", { role: "status" });
    this.before = button("strong", "Previous", "Previous page");
    this.after = button("strong", "Next", "Next page");
    this.before.addEventListener("click", () => this.turn(-1));
    this.after.addEventListener("click", () => this.turn(1));
    foot.append(this.place, this.before, this.after);
    return foot;
  }

  // -------------------------------------------------------------------------------------------------- drawing

  show(data, trigger) {
    this.trigger = trigger;
    if (data === this.data) return;
    const before = this.data;
    this.data = data;
    this.acts = Acts.on(this, data);
    this.acts.heard(data);
    if (!before || JSON.stringify(before.looked) !== JSON.stringify(data.looked)) this.settle(data.looked);
    this.draw();
    if (this.turned && before?.looked.page !== data.looked.page) this.root.host.scrollIntoView({ block: "start" });
    this.turned = false;
  }

  /** What the script says of the view; not into a field in which somebody types. */
  settle(looked) {
    const set = (node, value) => this.root.activeElement !== node && node.value !== value && (node.value = value);
    set(this.words, looked.words);
    set(this.begin, looked.begin);
    set(this.end, looked.end);
    this.sort.value = `${looked.sort} ${looked.descending}`;
  }

  get looked() {
    const asked = this.acts.open.findLast((act) => act.is === "view");
    return { ...this.data.looked, ...(asked?.looked ?? {}) };
  }

  draw() {
    this.searching();
    const titles = new Map(), gone = new Set();
    for (const act of this.acts.open) {
      if (act.is === "rename") titles.set(act.id, act.title);
      if (act.is === "delete") act.ids.forEach((id) => gone.add(id));
    }
    const active = this.root.activeElement, held = this.order.find((row) => row.item.contains(active)), at = this.order.indexOf(held);
    this.order = this.data.rows.filter(({ id }) => !gone.has(id)).map((data) => {
      if (!this.rows.has(data.id)) this.rows.set(data.id, new Row(this, data.id));
      const row = this.rows.get(data.id);
      row.show(data, titles.get(data.id) ?? data.title, this.data.address);
      return row;
    });
    const left = new Set(this.order);
    for (const [id, row] of this.rows) if (!left.has(row)) row.item.remove(), this.rows.delete(id);
    this.order.forEach((row, n) => this.body.children[n] !== row.item && this.body.insertBefore(row.item, this.body.children[n] ?? null));
    this.heading();
    this.chosenBar();
    this.footing();
    if (held && !left.has(held)) (this.order[Math.min(at, this.order.length - 1)]?.link ?? this.empty).focus();
    else if (held && this.root.activeElement !== active) active.focus({ preventScroll: true });
  }

  /** In place of the table: what was found. Days and order are the table's. */
  searching() {
    const { found, looked, address } = this.data;
    this.found.show(found, looked, address);
    for (const node of [this.box, this.bars, this.feet, ...this.ofTable]) node.hidden = !!found;
    this.leaving.hidden = !found;
  }

  heading() {
    const { sort, descending } = this.looked;
    this.heads.forEach((cell, at) => {
      const [key, text] = COLUMNS[at];
      const now = key === sort;
      if (now) cell.setAttribute("aria-sort", descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
      write(cell.querySelector("i"), now ? (descending ? "arrow_downward" : "arrow_upward") : "");
      cell.firstChild.title = now ? `${text}, ${wayOf(key, descending)}` : `Sort by ${text.toLowerCase()}`;
    });
    const ticked = this.order.filter((row) => this.chosen.has(row.id)).length;
    this.all.checked = ticked > 0 && ticked === this.order.length;
    this.all.indeterminate = ticked > 0 && ticked < this.order.length;
    this.table.hidden = !this.order.length;
    this.empty.hidden = this.order.length > 0;
    this.clear.hidden = !!this.data.found || (!this.data.looked.begin && !this.data.looked.end);
  }

  chosenBar() {
    const n = this.chosen.size;
    write(this.count, n ? `${counted(n, "chat")} chosen` : "");
    for (const node of [this.take, this.remove, this.none]) node.hidden = !n;
    this.form.parentElement.firstChild.data = n ? "as " : "Export a chat as ";
  }

  footing() {
    const { pages, chats, looked } = this.data;
    write(this.place, pages > 1 ? `Page ${looked.page.toLocaleString("en")} of ${pages.toLocaleString("en")}, ${counted(chats, "chat")}` : counted(chats, "chat"));
    for (const [node, off] of [[this.before, looked.page <= 1], [this.after, looked.page >= pages]]) {
      node.hidden = pages <= 1;
      node.setAttribute("aria-disabled", off); // not disabled: the focus would be lost
    }
  }

  // -------------------------------------------------------------------------------------------------- what a person does

  do(act) {
    this.acts.add(act);
    this.draw();
  }

  look(change) {
    this.do({ is: "view", looked: { ...this.looked, ...change } });
  }

  /** Typed and sent, or cleared. */
  search(words) {
    if (words || this.looked.words) this.look({ words, before: "", page: 1 });
  }

  turn(by) {
    const page = this.looked.page + by;
    if (page < 1 || page > this.data.pages) return;
    this.turned = true;
    this.look({ page });
  }

  delete(ids) {
    ids.forEach((id) => this.chosen.delete(id));
    this.do({ is: "delete", ids });
  }

  choose(id) {
    if (this.chosen.size < MOST_TICKED) this.chosen.add(id);
  }

  ticked(row) {
    if (row.tick.checked) this.choose(row.id);
    else this.chosen.delete(row.id);
    this.draw();
  }

  leave() {
    for (const row of this.order) row.named(true, false);
    if (this.acts?.list === this) clearTimeout(this.acts.timer);
  }
}

function wayOf(key, descending) {
  if (key === "title") return descending ? "Z to A" : "A to Z";
  if (key === "last") return descending ? "newest first" : "oldest first";
  if (key === "goes") return descending ? "latest first" : "next first";
  return descending ? "most first" : "fewest first";
}

const tables = new WeakMap();

export default function ({ parentElement, data, setTriggerValue }) {
  let table = tables.get(parentElement);
  if (!table) tables.set(parentElement, (table = new Table(parentElement)));
  table.show(data, setTriggerValue);
  return () => {
    if (parentElement.host.isConnected) return; // Streamlit also cleans up after a call that the next one overtook
    tables.delete(parentElement);
    table.leave();
  };
}
