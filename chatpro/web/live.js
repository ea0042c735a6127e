// Draws the answer being written, word by word, holds the page's one socket, and is the hands of what Streamlit has no widget for:
// the quiet buttons of the messages' rows, copying, and where the page stands when a chat is opened or older messages come.
//
// An answer is a stranger's text: it may quote a page that wants to be fetched, to lead away, or to run. Everything here is
// made of DOM nodes and text nodes; no HTML is ever parsed, no picture is made, and a link is a link only after its address
// was checked. What is drawn stands where Streamlit's own markdown will stand when the answer is finished, so that no line
// moves under the eyes of whoever reads; where smd reads markdown differently from Streamlit, Reader mends it on the way in.

import * as smd from "./vendor/streaming-markdown/smd.js";

const sheet = new CSSStyleSheet();
sheet.replaceSync(await (await fetch(new URL("live.css", import.meta.url))).text());

const LONGEST = 200_000; // characters; beyond it, as for finished answers, plain text
const DEEPEST = 20; // levels; smd keeps 24 and loses count beyond
const MOST_ENDS = 3; // a page that goes on showing an answer that has ended is told so thrice, not for ever
const LOST_CODES = new Set([4403, 4404]); // the right has ended, the channel is unknown: ask the script for another
const REPLACED = 4409;

// ---------------------------------------------------------------------------------------------------- what is allowed

const SCHEMES = new Set(["http:", "https:", "mailto:"]);

/** The address as a URL if it may be a link, else null. Relative ones may not: an answer knows nothing of this site. */
function target(address) {
  const bare = address.trim().replace(/^<(.*)>$/, "$1").split(/[\s]/)[0];
  if (!/^(https?:\/\/|mailto:)/i.test(bare)) return null;
  try {
    const url = new URL(bare);
    return SCHEMES.has(url.protocol) && (url.hostname || (url.protocol === "mailto:" && url.pathname)) ? url : null;
  } catch {
    return null;
  }
}

/** Where an address leads, for people. */
const host = (url) => (url.protocol === "mailto:" ? decodeURIComponent(url.pathname) : url.hostname.replace(/^www\./, ""));

// ---------------------------------------------------------------------------------------------------- drawing

// Signs of our own in what smd is fed (private use, gone before anything is drawn).
const BREAK_SPACES = "\uE000", BREAK_BACKSLASH = "\uE001", BRACKET = "\uE002", PARENTHESIS = "\uE003";
const OURS = /[\uE000-\uE003]/g;
const AS_CODE = { [BREAK_SPACES]: "  ", [BREAK_BACKSLASH]: "\\", [BRACKET]: "\\[", [PARENTHESIS]: "\\(" };
const AS_TEXT = { [BREAK_SPACES]: "", [BREAK_BACKSLASH]: "", [BRACKET]: "[", [PARENTHESIS]: "(" };
const ENTITIES = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00A0" };

const TAGS = {
  [smd.PARAGRAPH]: "p", [smd.BLOCKQUOTE]: "blockquote", [smd.LIST_UNORDERED]: "ul", [smd.LIST_ORDERED]: "ol", [smd.LIST_ITEM]: "li",
  [smd.HEADING_1]: "h1", [smd.HEADING_2]: "h2", [smd.HEADING_3]: "h3", [smd.HEADING_4]: "h4", [smd.HEADING_5]: "h5", [smd.HEADING_6]: "h6",
  [smd.ITALIC_AST]: "em", [smd.ITALIC_UND]: "em", [smd.STRONG_AST]: "strong", [smd.STRONG_UND]: "strong", [smd.STRIKE]: "del",
  [smd.CODE_INLINE]: "code",
};
const BLOCKS = new Set([
  smd.PARAGRAPH, smd.BLOCKQUOTE, smd.LIST_UNORDERED, smd.LIST_ORDERED, smd.CODE_BLOCK, smd.CODE_FENCE, smd.TABLE, smd.EQUATION_BLOCK,
  smd.HEADING_1, smd.HEADING_2, smd.HEADING_3, smd.HEADING_4, smd.HEADING_5, smd.HEADING_6,
]);
const CODE = new Set([smd.CODE_BLOCK, smd.CODE_FENCE, smd.CODE_INLINE]);

const make = (tag, text) => {
  const node = document.createElement(tag);
  if (text) node.textContent = text;
  return node;
};

/** smd's renderer: each token becomes a node, each text a text node. */
class Drawing {
  constructor(root) {
    this.stack = [{ type: smd.DOCUMENT, node: root }];
    this.cursor = make("span");
    this.cursor.className = "cursor";
    this.cursor.setAttribute("aria-hidden", "true");
    this.tail = make("span"); // see Reader.show
    this.afterBlank = false; // the line before this one was empty: what makes a list loose
    this.hard = false; // the text before the coming line break asked for a real one
    this.table = null;
    root.append(this.cursor);
    this.renderer = {
      data: this,
      add_token: (drawing, type) => drawing.open(type),
      end_token: (drawing) => drawing.close(),
      add_text: (drawing, text) => drawing.text(text),
      set_attr: (drawing, type, value) => drawing.attribute(type, value),
    };
  }

  get top() {
    return this.stack[this.stack.length - 1];
  }

  /** The node that words go into. A list item's words stand in a paragraph of its own, which has space below only in a loose list. */
  get words() {
    const { type, node } = this.top;
    if (type !== smd.LIST_ITEM && type !== smd.BLOCKQUOTE && type !== smd.DOCUMENT) return node;
    let last = this.lastOf(node);
    if (last?.tagName !== "P" || last.dataset.own) last = this.put(node, make("p"));
    return last;
  }

  lastOf(node) {
    return node.lastChild === this.cursor ? this.cursor.previousSibling : node.lastChild;
  }

  put(parent, node) {
    parent.insertBefore(node, this.cursor.parentNode === parent ? this.cursor : null);
    return node;
  }

  open(type) {
    if (this.stack.length > DEEPEST) throw new Error("more levels than anybody reads");
    let node;
    const above = this.top;
    if (BLOCKS.has(type) && above.type === smd.LIST_ITEM && this.afterBlank && this.lastOf(above.node)) above.list.classList.add("loose");
    switch (type) {
      case smd.LINE_BREAK:
        // A line's end is a space, as in Streamlit, unless two spaces or a backslash stand before it.
        if (this.afterBlank && above.type === smd.LIST_ITEM) {
          above.list.classList.add("loose");
          this.put(above.node, make("p"));
        } else if (this.hard) this.put(this.words, make("br"));
        else this.text(" ");
        this.hard = false;
        node = make("span");
        break;
      case smd.RULE:
        node = this.put(above.node, make("hr"));
        break;
      case smd.LINK:
        // "[Your Name]" is words until an address follows.
        node = this.put(this.words, make("span", "["));
        break;
      case smd.IMAGE:
        node = this.put(this.words, make("span", "!["));
        break;
      case smd.RAW_URL:
        node = this.put(this.words, make("span"));
        break;
      case smd.EQUATION_BLOCK:
      case smd.EQUATION_INLINE:
        node = this.put(this.words, make("span"));
        break;
      case smd.CHECKBOX:
        node = this.put(this.words, make("input"));
        node.type = "checkbox";
        node.disabled = true;
        above.node.classList.add("task");
        break;
      case smd.CODE_BLOCK:
      case smd.CODE_FENCE:
        node = this.put(above.node, make("pre")).appendChild(make("code"));
        break;
      case smd.TABLE: {
        const scroller = this.put(above.node, make("div"));
        scroller.className = "table";
        node = scroller.appendChild(make("table"));
        this.table = { node, rows: 0, align: [] };
        break;
      }
      case smd.TABLE_ROW:
        node = (this.table.rows < 2 ? above.node.appendChild(make(this.table.rows ? "tbody" : "thead")) : above.node.lastChild).appendChild(make("tr"));
        this.table.rows += 1;
        break;
      case smd.TABLE_CELL:
        node = above.node.appendChild(make(this.table.rows > 1 ? "td" : "th"));
        node.style.textAlign = this.table.align[above.node.children.length - 1] ?? "";
        break;
      case smd.LIST_ITEM:
        if (this.afterBlank && above.node.children.length) above.node.classList.add("loose");
        node = this.put(above.node, make("li"));
        break;
      case smd.LIST_UNORDERED:
      case smd.LIST_ORDERED: {
        // smd begins another list after an item with paragraphs of its own; to Streamlit it is the same one.
        const last = this.lastOf(above.node);
        const same = last?.tagName === TAGS[type].toUpperCase();
        if (same && this.afterBlank) last.classList.add("loose");
        node = same ? last : this.put(above.node, make(TAGS[type]));
        break;
      }
      default: {
        const block = BLOCKS.has(type);
        node = this.put(block ? above.node : this.words, make(TAGS[type] ?? "span"));
        if (block && type === smd.PARAGRAPH) node.dataset.own = "1";
      }
    }
    this.stack.push({ type, node, list: type === smd.LIST_ITEM ? above.node : null });
  }

  close() {
    const { type, node, address, refused } = this.stack.pop();
    if (type === smd.TABLE) this.table = null;
    if (type === smd.LINK && !address) node.append(refused ?? "]");
    if (type === smd.LINK && address) this.sayHost(node, address);
    if (type === smd.IMAGE && !address) node.append("]");
  }

  text(text) {
    const { type } = this.top;
    if (CODE.has(type)) text = text.replace(OURS, (sign) => AS_CODE[sign]);
    else {
      if (type === smd.TABLE || type === smd.TABLE_ROW) return;
      this.hard = text.endsWith(BREAK_SPACES) || text.endsWith(BREAK_BACKSLASH);
      text = text.replace(OURS, (sign) => AS_TEXT[sign]);
      if (text.includes("&")) text = text.replace(/&(?:(amp|lt|gt|quot|apos|nbsp)|#(\d{1,7})|#x([0-9a-f]{1,6}));/gi, entity);
    }
    if (!text) return;
    const words = this.words;
    const last = this.lastOf(words);
    if (last?.tagName === "INPUT") text = ` ${text.trimStart()}`;
    if (last?.nodeType === Node.TEXT_NODE) last.appendData(text);
    else this.put(words, document.createTextNode(text));
    if (this.cursor.parentNode !== words) words.append(this.cursor);
  }

  attribute(type, value) {
    const top = this.top;
    if (type === smd.HREF && top.type === smd.LINK) this.lead(top, value);
    else if (type === smd.HREF && top.type === smd.RAW_URL) this.leadRaw(top, value);
    else if (type === smd.SRC && top.type === smd.IMAGE) {
      const words = top.node.textContent.slice(2).trim().replace(/\s+/g, " ");
      top.node.textContent = words ? `[image not loaded: ${words}]` : "[image not loaded]";
      top.address = value;
    } else if (type === smd.CHECKED) top.node.checked = true;
    else if (type === smd.START && !top.node.children.length && /^\d{1,9}$/.test(value)) top.node.setAttribute("start", value);
  }

  lead(top, value) {
    const url = target(value.replace(OURS, ""));
    if (!url) {
      top.refused = `](${value})`;
      return;
    }
    top.node.firstChild.deleteData(0, 1); // the bracket
    top.address = url;
    top.node = this.anchor(top.node, url);
  }

  leadRaw(top, value) {
    const written = top.node.textContent;
    const end = written.replace(/[.,;:!?'"*_~)\]>]+$/, "").length; // what ends a sentence or closes a bracket is not the address
    const url = target(written.slice(0, end));
    if (!url) return;
    const rest = written.slice(end);
    top.node.textContent = written.slice(0, end);
    const anchor = this.anchor(top.node, url);
    if (rest) anchor.after(rest);
    top.node = anchor;
  }

  anchor(node, url) {
    const anchor = make("a");
    anchor.href = url.href;
    anchor.title = host(url);
    anchor.target = "_blank";
    anchor.rel = "noopener noreferrer nofollow";
    anchor.append(...node.childNodes);
    node.replaceWith(anchor);
    return anchor;
  }

  sayHost(node, url) {
    const shown = host(url);
    if (!node.textContent.toLowerCase().includes(shown.toLowerCase())) node.after(` (${shown})`);
  }

  /** A table's second line says how its columns stand. */
  align(line) {
    if (this.table?.rows !== 1 || !/^[\s|:-]*-[\s|:-]*$/.test(line)) return;
    const columns = line.trim().replace(/^\||\|$/g, "").split("|").map((column) => column.trim());
    this.table.align = columns.map((c) => (c.endsWith(":") ? (c.startsWith(":") ? "center" : "right") : c.startsWith(":") ? "left" : ""));
    [...this.table.node.querySelectorAll("th")].forEach((cell, n) => (cell.style.textAlign = this.table.align[n] ?? ""));
  }
}

function entity(written, name, decimal, hexadecimal) {
  if (name) return ENTITIES[name.toLowerCase()];
  const code = decimal ? parseInt(decimal, 10) : parseInt(hexadecimal, 16);
  return code > 0 && code <= 0x10ffff && !(code >= 0xd800 && code <= 0xdfff) ? String.fromCodePoint(code) : "\uFFFD";
}

// ---------------------------------------------------------------------------------------------------- reading

const PUNCTUATION = /[!-/:-@[-`{-~]/;
const WORD = /[\p{L}\p{N}]/u;
const PLACES_OF_BREAKS = new Set([
  smd.PARAGRAPH, smd.LIST_ITEM, smd.ITALIC_AST, smd.ITALIC_UND, smd.STRONG_AST, smd.STRONG_UND, smd.STRIKE, smd.LINK,
]);
const PLACES_TO_BEGIN = new Set([smd.DOCUMENT, smd.LINE_BREAK, smd.NEWLINE, smd.BLOCKQUOTE, smd.LIST_ORDERED, smd.LIST_UNORDERED, smd.TABLE, smd.TABLE_ROW]);

/**
 * Feeds smd, and puts right what it reads otherwise than Streamlit does: a single dollar is money, underscores within words
 * are underscores, `\(` and `\[` are brackets, formulas between `$$` stay as written, two spaces end a line.
 * What can't be told yet at the end of a message is held until the next character comes.
 */
class Reader {
  constructor(drawing) {
    this.drawing = drawing;
    this.parser = smd.parser(drawing.renderer);
    this.ready = "";
    this.held = ""; // a run of one of: backslash, underscore, dollar, space
    this.before = ""; // the character before the run
    this.last = "";
    this.line = "";
    this.formula = false;
    this.skipped = false; // an empty line that smd has not been told of yet
    this.prefix = ""; // the beginning of the line after it
  }

  write(text) {
    this.drawing.tail.remove();
    for (const char of text) this.take(char);
    this.flush();
    this.show();
  }

  /** smd keeps the last character back until the next one says what it is. A letter is a letter: it is shown meanwhile. */
  show() {
    const { parser, drawing } = this;
    const waits = !PLACES_TO_BEGIN.has(parser.token) && !CODE.has(parser.tokens[parser.len]) && (parser.token === smd.MAYBE_URL || /^[^\s\\`*_~[\]!<|$#>(-]$/u.test(parser.pending));
    if (!waits) return;
    drawing.tail.textContent = parser.pending.replace(OURS, (sign) => AS_TEXT[sign]);
    drawing.words.append(drawing.tail, drawing.cursor);
  }

  end() {
    this.drawing.tail.remove();
    if (this.prefix) this.decide();
    this.release("\n");
    this.flush();
    smd.parser_end(this.parser);
  }

  take(char) {
    if (char !== " " && !this.line.trim()) {
      if (char === "\n" && this.itemIndent !== null) return this.skip();
      this.indentFence(char);
    }
    if (this.skipped && (this.prefix || (char !== " " && char !== "\n"))) return this.afterSkip(char);
    if (this.held && !(char === this.held[0] && char !== "\\")) {
      if (this.release(char)) return this.note(char);
    }
    if (char === "\\" || char === "_" || char === "$" || char === " ") {
      if (!this.held) this.before = this.last;
      this.held += char;
    } else if (this.formula && PUNCTUATION.test(char)) this.ready += literal(char);
    else this.ready += char;
    this.note(char);
  }

  note(char) {
    this.last = char;
    if (char !== "\n") {
      this.line += char;
      return;
    }
    this.flush();
    const blank = !this.line.trim();
    if (blank) this.formula = false;
    this.drawing.align(this.line);
    this.drawing.afterBlank = blank;
    this.line = "";
  }

  /** An empty line within a list: whether it ends the item is known when the next line begins. */
  skip() {
    this.held = this.line = "";
    this.last = "\n";
    this.formula = false;
    this.skipped = this.drawing.afterBlank = true;
  }

  /**
   * The line after an empty one within a list. Streamlit keeps the item open when the line is indented like the item's words,
   * and ends all lists when it is not; smd ends one level, whatever the line is. So it is told as many empty lines as it takes.
   */
  afterSkip(char) {
    this.prefix += char;
    if (/^(?:[-*+]|\d{1,9}[.)]?)$/.test(this.prefix)) return; // may become an item's mark
    this.decide();
  }

  decide() {
    const inner = this.itemIndent;
    const { parser, prefix } = this;
    const outer = parser.spaces[parser.tokens.indexOf(smd.LIST_ITEM)];
    if (inner !== null && this.line.length < inner) this.ready += this.line.length < outer && !/^(?:[-*+]|\d{1,9}[.)]) /.test(prefix) ? "\n\n\n" : "\n";
    this.flush();
    this.skipped = false;
    this.prefix = "";
    for (const char of prefix) this.take(char);
  }

  /** Within a list, smd ends a fence at an empty line and loses nested ones: it is given the indent that it expects. */
  indentFence(char) {
    const { parser } = this;
    if (parser.tokens[parser.len] !== smd.CODE_FENCE) return;
    let all = 0, own = 0;
    for (let level = 1; level <= parser.len; level += 1) if (parser.tokens[level] === smd.LIST_ITEM) all += own = parser.spaces[level];
    if (own && (char === "\n" || this.line.length >= own)) this.held = " ".repeat(all + Math.max(0, this.line.length - own));
  }

  /** How far the words of the innermost open list item are indented; null outside of lists and within code. */
  get itemIndent() {
    this.flush();
    const { parser } = this;
    if (CODE.has(parser.tokens[parser.len])) return null;
    for (let level = parser.len; level > 0; level -= 1) if (parser.tokens[level] === smd.LIST_ITEM) return parser.spaces[level];
    return null;
  }

  /** What is held, now that the next character is known. True when that character is used up with it. */
  release(next) {
    const run = this.held;
    this.held = "";
    if (!run) return false;
    if (run[0] === " ") {
      this.flush();
      if (next === "\n" && run.length > 1 && PLACES_OF_BREAKS.has(this.parser.token)) this.ready += BREAK_SPACES;
      else this.ready += run;
      return false;
    }
    this.flush();
    if (this.inCode) {
      this.ready += run;
      return false;
    }
    if (run[0] === "_") this.ready += this.formula || (WORD.test(this.before) && WORD.test(next)) ? "\\_".repeat(run.length) : run;
    else if (run[0] === "$") {
      this.ready += "\\$".repeat(run.length);
      if (run.length === 2) this.formula = !this.formula;
    } else if (this.formula) this.ready += "\\\\";
    else if (next === "\n" && PLACES_OF_BREAKS.has(this.parser.token)) this.ready += BREAK_BACKSLASH;
    else if (next === "[" || next === "(") {
      this.ready += next === "[" ? BRACKET : PARENTHESIS;
      return true;
    } else if (PUNCTUATION.test(next)) {
      this.ready += `\\${next}`;
      return true;
    } else this.ready += "\\\\";
    return false;
  }

  /** Code, or an address: nothing in it is markdown. */
  get inCode() {
    const { parser } = this;
    if (parser.token === smd.RAW_URL || parser.token === smd.MAYBE_URL || parser.pending.startsWith("](")) return true;
    return CODE.has(parser.tokens[parser.len]) || parser.pending[0] === "`" || (parser.indent_len >= 4 && parser.token === smd.DOCUMENT);
  }

  flush() {
    if (this.ready) smd.parser_write(this.parser, this.ready);
    this.ready = "";
  }
}

const literal = (char) => (char === "[" ? BRACKET : char === "(" ? PARENTHESIS : `\\${char}`);

// ---------------------------------------------------------------------------------------------------- the socket

const points = (text) => {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
};

const OWN_FIRST = -1; // in place of how many go before it: the person's own other answers do
const NOTHING = { id: null, text: "", at: 0, ended: false, ends: 0, ahead: null };

/** The page's one socket. It outlives the component, which the page may take away and put back in one run. */
class Line {
  static open = new Map();
  static losses = 0; // over all channels: a right that has ended makes each new channel fail as the one before

  static at(url) {
    const known = Line.open.get(url) ?? new Line(url);
    clearTimeout(known.leaving);
    return known;
  }

  constructor(url) {
    this.url = url;
    this.views = new Set();
    this.stops = new Set();
    this.failures = 0;
    this.news = 0;
    this.answer = { ...NOTHING };
    Line.open.set(url, this);
    this.connect();
  }

  connect() {
    clearTimeout(this.timer);
    const socket = (this.socket = new WebSocket(location.origin.replace(/^http/, "ws") + this.url));
    socket.onopen = () => {
      this.greet();
      for (const id of this.stops) this.send({ stop: id });
      this.timer = setTimeout(() => ((this.failures = 0), (Line.losses = 0)), 5_000);
    };
    socket.onmessage = (event) => this.hear(JSON.parse(event.data));
    socket.onclose = (event) => socket === this.socket && this.closed(event.code);
  }

  /** Say what is here, so that nothing comes twice: also when nothing is shown, or the server would wait with what comes next. */
  greet() {
    const wanted = [...this.views].map((view) => view.id).find(Boolean) ?? this.answer.id;
    this.send({ id: wanted, at: wanted === this.answer.id ? this.answer.at : 0 });
  }

  /** A view shows another answer than what came: it may have been told of before the view was there to hear. */
  wanted() {
    const wanted = [...this.views].map((view) => view.id).find(Boolean);
    if (wanted && wanted !== this.answer.id) this.greet();
  }

  send(words) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify(words));
  }

  hear({ id, at, add, end, ahead, chat, is, news }) {
    this.failures = Line.losses = 0;
    if (news) return this.heardNews(news);
    if (chat) return void document.dispatchEvent(new CustomEvent("chatpro:chat", { detail: { chat, is } }));
    if (id !== this.answer.id) {
      if (!end && ahead === undefined && at !== 0) return this.send({ id, at: 0 });
      this.answer = { ...NOTHING, id };
    }
    const { answer } = this;
    if (ahead !== undefined) answer.ahead = ahead;
    else if (end) {
      answer.ended = true;
      this.stops.delete(id);
    } else {
      if (at > answer.at) return this.send({ id, at: answer.at });
      const fresh = at < answer.at ? [...add].slice(answer.at - at).join("") : add;
      answer.text += fresh;
      answer.at += points(fresh);
    }
    for (const view of this.views) view.draw();
  }

  heardNews(number) {
    this.news = Math.max(this.news, number);
    ask();
  }

  /** The one view whose run brings what is shown up to date, if it is behind: the moving part of the chat page, elsewhere the whole page. */
  get behind() {
    const views = [...this.views];
    const view = views.find((one) => one instanceof View) ?? views[0];
    return view && (view.news < this.news || due.passed) ? view : null;
  }

  stop(id) {
    this.stops.add(id); // said again after a break, until the end has come
    this.send({ stop: id });
  }

  closed(code) {
    clearTimeout(this.timer);
    if (code === REPLACED || !this.views.size) return;
    if (LOST_CODES.has(code)) return this.lost();
    const wait = Math.min(15_000, 250 * 2 ** this.failures++);
    this.timer = setTimeout(() => this.connect(), wait * (0.75 + Math.random() / 2));
  }

  /**
   * Ask the script for another channel, at ever longer intervals, so that a right that has ended never makes a storm. Not at
   * once: after a restart the page runs anew by itself, and a rerun of a fragment that the new process does not know yet would
   * take that run's place.
   */
  lost() {
    const wait = Math.min(60_000, 2_000 * 2 ** Line.losses) * (0.75 + Math.random() / 2);
    Line.losses += 1;
    this.timer = setTimeout(() => {
      const views = [...this.views];
      const hands = views.filter((view) => view instanceof Hands);
      for (const view of hands.length ? hands : views) view.lost(this.url);
      if (this.views.size) this.lost();
    }, wait);
  }

  /** What the page knows of its answer goes over to its new channel. */
  inherit(answer) {
    if (answer && !answer.ended && this.answer.id === null) this.answer = answer;
  }

  join(view) {
    this.views.add(view);
  }

  leave(view) {
    this.views.delete(view);
    if (this.views.size) return;
    this.leaving = setTimeout(() => {
      clearTimeout(this.timer);
      Line.open.delete(this.url);
      this.socket.close();
    }, 5_000);
  }

  /** A laptop that wakes, a network that comes back: do not wait out the pause. */
  static retry() {
    for (const line of Line.open.values()) {
      if (line.socket.readyState === WebSocket.CLOSED && line.failures && line.views.size) line.connect();
    }
  }
}

addEventListener("online", () => Line.retry());
document.addEventListener("visibilitychange", () => document.visibilityState === "visible" && (Line.retry(), tick(), ask()));

// ---------------------------------------------------------------------------------------------------- the allowance

const MINUTE = 60_000, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
const LONGEST_SLEEP = HOUR; // a computer that sleeps stops its timers; beyond some days browsers keep none

/** When what is shown of the allowance changes by itself: at the renewal, or at a grant's beginning or end. Only the server's clock counts. */
const due = {
  at: null,
  ahead: 0, // of the server's clock, by this one
  set(at, now) {
    if (this.said === `${at} ${now}`) return; // Streamlit shows the same data again
    this.said = `${at} ${now}`;
    this.ahead = now - Date.now();
    this.at = at;
    tick();
  },
  left(at) {
    return at - (Date.now() + this.ahead);
  },
  get passed() {
    return this.at !== null && this.left(this.at) < -200; // a run that comes a moment too early would come for nothing
  },
};

/** How long until then, as it is said here: whole days, on the last day hours, in the last hour minutes; never less than it is. */
function span(ms) {
  const [size, unit] = ms > DAY ? [DAY, "day"] : ms > HOUR ? [HOUR, "hour"] : [MINUTE, "minute"];
  const count = Math.max(1, Math.ceil(ms / size));
  return [count, count === 1 ? unit : `${unit}s`, ms % size || size];
}

let ticking = 0;

/** Write what is left anew, and look again when it will read otherwise. */
function tick() {
  clearTimeout(ticking);
  let sleep = due.at === null ? Infinity : Math.max(50, due.left(due.at) + 250);
  for (const element of document.querySelectorAll("[data-due]")) {
    const left = due.left(Number(element.dataset.due));
    if (left <= 0) continue; // the run that follows says what comes next
    const [count, unit, lasts] = span(left);
    const [number, word] = element.querySelectorAll("b, small");
    if (number && word) (number.textContent = count), (word.textContent = unit);
    else element.textContent = `in ${count} ${unit}`;
    sleep = Math.min(sleep, lasts);
    if (element.closest(".blocked") && unit.startsWith("minute") && (count === 5 || count === 1)) say(`You can write again in ${count} ${unit}`);
  }
  if (due.passed) ask();
  if (sleep < Infinity) ticking = setTimeout(tick, Math.min(sleep + 20, LONGEST_SLEEP));
}

let spoken = "";
function say(words) {
  const hands = [...Line.open.values()].flatMap((line) => [...line.views]).find((view) => view instanceof Hands);
  if (hands && spoken !== words) hands.status.textContent = spoken = words;
}

let asking = 0, asked = 0;

/**
 * Have what is out of date drawn anew: not while a run goes, which may bring it by itself, and not in a tab that nobody sees. Said again
 * until the data show that it was heard, because Streamlit forgets a trigger when another comes before its run has begun.
 */
function ask() {
  clearTimeout(asking);
  const views = [...Line.open.values()].map((line) => line.behind).filter(Boolean);
  if (!views.length || document.visibilityState !== "visible") return void (asked = 0);
  const busy = running() || views.some((view) => view.ending);
  if (!busy) {
    asked += 1;
    for (const view of views) view.trigger("news", view.line.news);
  }
  asking = setTimeout(ask, busy ? 250 : Math.min(60_000, 1_000 * 2 ** asked));
}

// ---------------------------------------------------------------------------------------------------- the view

/** One place on the page where an answer is drawn. */
class View {
  constructor(root) {
    this.id = null;
    this.box = make("div");
    this.box.className = "live";
    this.box.hidden = true;
    this.body = make("div");
    this.body.className = "answer";
    this.row = make("div");
    this.row.className = "row";
    this.button = make("button");
    this.button.type = "button";
    const square = make("i");
    square.setAttribute("aria-hidden", "true");
    this.label = make("span", "Stop");
    this.button.append(square, this.label);
    this.button.addEventListener("click", () => this.stop());
    this.note = make("small");
    this.row.append(this.button, this.note);
    this.status = make("div");
    this.status.className = "vh";
    this.status.setAttribute("role", "status");
    this.status.setAttribute("aria-live", "polite");
    this.box.append(this.body, this.row);
    this.newest = make("button", "Newest");
    this.newest.type = "button";
    this.newest.className = "newest";
    this.newest.hidden = true;
    this.newest.setAttribute("aria-label", "Jump to newest");
    this.newest.addEventListener("click", () => (toNewest(), composer()?.focus({ preventScroll: true })));
    root.append(this.box, this.status, this.newest);
    root.adoptedStyleSheets = [sheet];
    this.scroller = scrollerOf(root.host ?? root);
    this.atBottom = true;
    this.onScroll = () => (this.atBottom = this.scroller.scrollHeight - this.scroller.scrollTop - this.scroller.clientHeight < 12);
    if (this.scroller) {
      this.onScroll();
      this.scroller.addEventListener("scroll", this.onScroll, { passive: true });
    }
    this.onPageScroll = () => this.offerNewest();
    document.addEventListener("scroll", this.onPageScroll, { passive: true, capture: true });
    this.footWatch = new ResizeObserver(() => this.atBottom && this.follow()); // a notice above the composer covers nothing that was in sight
    this.guard = (event) => this.keepBack(event);
    for (const kind of ["keydown", "click"]) document.addEventListener(kind, this.guard, { capture: true });
  }

  /** Scrolled up by more than a few lines, there is a way back down. */
  offerNewest() {
    const page = scrollerOfPage();
    if (!page) return;
    this.newest.hidden = page.scrollHeight - page.scrollTop - page.clientHeight < 240;
    const foot = document.querySelector("[data-testid=stBottom]");
    if (!this.newest.hidden && foot) {
      const box = page.getBoundingClientRect();
      this.newest.style.bottom = `${Math.round(innerHeight - foot.getBoundingClientRect().top + 8)}px`;
      this.newest.style.left = `${Math.round(box.left + box.width / 2)}px`;
    }
  }

  /** While an answer is written its chat takes no other message: said where the person looks, and what they typed stays typed. */
  keepBack(event) {
    if (this.id === null || this.ended) return;
    const box = composer();
    const enters = event.type === "keydown" && event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target === box;
    const sends = event.type === "click" && event.target.closest?.("[data-testid=stChatInputSubmitButton]");
    if (!(enters || sends) || !box?.value.trim()) return;
    event.preventDefault();
    event.stopImmediatePropagation();
    why(this.waits ? "Your message is waiting for its place. This one can follow when that was answered." : "An answer is being written. Stop it, or send this when it has ended.");
  }

  get waits() {
    return this.line?.answer.id === this.id && this.line.answer.ahead !== null && !this.drawn;
  }

  show(data, trigger) {
    this.trigger = trigger;
    this.writing = String(data.writing ?? "");
    this.news = data.news ?? 0;
    if (this.line?.url !== data.stream_url) {
      const before = this.line;
      before?.leave(this);
      this.line = Line.at(data.stream_url);
      this.line.inherit(before?.answer);
      this.line.join(this);
    }
    if (data.id !== this.id) {
      this.begin(data.id);
      this.line.wanted();
    }
    this.say();
    this.draw();
    if (data.news !== undefined) due.set(data.due ?? null, data.now);
    const foot = document.querySelector("[data-testid=stBottom]");
    if (foot && foot !== this.foot) this.footWatch.observe((this.foot = foot));
  }

  /** Its end asks for the run that brings everything up to date. */
  get ending() {
    return this.id !== null && this.ended && performance.now() - this.endedAt < 3_000;
  }

  begin(id) {
    if (this.button.matches(":focus")) composer()?.focus({ preventScroll: true }); // its button goes with the answer
    why("");
    this.id = id;
    this.drawn = 0;
    this.ended = this.stopping = this.plain = this.waited = false;
    this.body.replaceChildren();
    this.box.hidden = id === null;
    if (id === null) return;
    this.drawing = new Drawing(this.body);
    this.reader = new Reader(this.drawing);
    this.box.setAttribute("aria-busy", "true");
    this.button.removeAttribute("aria-disabled");
    this.label.textContent = "Stop";
    this.status.textContent = "";
  }

  say() {
    if (!this.id) return;
    if (this.waits) {
      const { ahead } = this.line.answer;
      const what = ahead === OWN_FIRST ? "Waiting for your other answer" : "Waiting for a place";
      const where = ahead === OWN_FIRST ? "when it has ended, it is known what is left for this one" : ahead === 1 ? "1 message goes before yours" : `${ahead} messages go before yours`;
      this.note.textContent = `${what}: ${ahead ? where : "yours is next"}`;
      if (!this.stopping) this.label.textContent = "Don't send";
      if (!this.waited) this.status.textContent = what;
      this.waited = true;
      return;
    }
    if (this.waited && !this.stopping) this.label.textContent = "Stop";
    if (!this.ended) this.status.textContent = "Answer started";
    this.note.textContent = this.ended ? "" : `${this.writing} is ${this.drawn ? "writing" : "thinking"}`;
  }

  draw() {
    const { answer } = this.line;
    if (this.id === null || answer.id !== this.id || this.ended) return;
    const fresh = answer.text.slice(this.drawn);
    if (fresh) {
      const first = !this.drawn;
      this.drawn = answer.text.length;
      this.put(fresh, answer.text);
      if (first) this.say();
      if (this.atBottom) this.follow();
      this.offerNewest();
    } else if (answer.ahead !== null || this.waited) this.say();
    if (answer.ended) this.end(answer);
  }

  put(fresh, whole) {
    try {
      if (!this.plain && whole.length <= LONGEST) return fresh === null ? this.reader.end() : this.reader.write(fresh);
    } catch (error) {
      console.error("The answer is shown as plain text from here on.", error);
    }
    if (!this.plain) {
      this.plain = true;
      const text = make("pre", whole);
      text.className = "plain";
      this.body.replaceChildren(text);
    } else this.body.firstChild.append(fresh);
  }

  end(answer) {
    this.ended = true;
    this.endedAt = performance.now();
    if (!this.plain) {
      this.put(null, answer.text);
      this.drawing.cursor.remove();
    }
    this.box.setAttribute("aria-busy", "false");
    why("");
    this.status.textContent = this.stopping ? (this.waited && !this.drawn ? "Not sent" : "Answer stopped") : "Answer finished";
    this.button.setAttribute("aria-disabled", "true");
    this.say();
    if (answer.ends++ < MOST_ENDS) this.trigger("end", answer.id);
  }

  stop() {
    if (this.stopping || this.ended || this.id === null) return;
    this.stopping = true;
    this.button.setAttribute("aria-disabled", "true"); // not disabled: the focus would be lost
    this.label.textContent = "Stopping";
    this.line.stop(this.id);
  }

  lost(url) {
    this.trigger("lost", url);
  }

  /** Whoever reads the end goes on seeing the end; whoever scrolled up stays where they are. */
  follow() {
    if (this.following || !this.scroller) return;
    this.following = requestAnimationFrame(() => {
      this.following = 0;
      if (this.atBottom) this.scroller.scrollTop = this.scroller.scrollHeight;
    });
  }

  leave() {
    this.footWatch.disconnect();
    this.scroller?.removeEventListener("scroll", this.onScroll);
    document.removeEventListener("scroll", this.onPageScroll, { capture: true });
    for (const kind of ["keydown", "click"]) document.removeEventListener(kind, this.guard, { capture: true });
    this.line?.leave(this);
    this.line = null;
  }
}

/** What scrolls the page, unless Streamlit itself keeps it at the end, as it does where a composer is: two who do it fight over the place. */
function scrollerOf(node) {
  for (let at = node.parentElement; at; at = at.parentElement) {
    if (/auto|scroll/.test(getComputedStyle(at).overflowY)) return at.dataset.testid === "stAppScrollToBottomContainer" ? null : at;
  }
  return null;
}

// ---------------------------------------------------------------------------------------------------- the page around it

const LONGEST_HOLD = 20_000, FEWEST_FRAMES = 20;
const running = () => document.querySelector("[data-testid=stApp]")?.dataset.testScriptState !== "notRunning";
const composer = () => document.querySelector("[data-testid=stChatInput] textarea");
const scrollerOfPage = () => document.querySelector("[data-testid=stAppScrollToBottomContainer]") ?? document.querySelector("[data-testid=stMain]");

/** One line under the composer, for what can't be done just now. */
function why(words) {
  const line = document.querySelector(".why");
  if (line && line.textContent !== words) line.textContent = words;
}

/** Do it on every frame while the page is being drawn, until the person moves the page themselves. */
function hold(act, ms = 1_500) {
  const latest = performance.now() + LONGEST_HOLD;
  let until = 0, frames = 0;
  const stop = new AbortController();
  for (const kind of ["wheel", "touchmove", "pointerdown", "keydown"]) addEventListener(kind, () => stop.abort(), { capture: true, passive: true, once: true, signal: stop.signal });
  const frame = () => {
    const now = performance.now();
    // Counted from the end of a run, and in frames as well: a busy machine draws late, and what it draws it draws in few of them.
    if (!until || (running() && now < latest)) [until, frames] = [now + ms, 0];
    frames += 1;
    if (stop.signal.aborted || (now > until && frames > FEWEST_FRAMES) || act() === false) return stop.abort();
    requestAnimationFrame(frame);
  };
  frame();
}

function toNewest() {
  hold(() => {
    const page = scrollerOfPage();
    if (page && page.scrollHeight - page.clientHeight - page.scrollTop > 1) page.scrollTop = page.scrollHeight;
  }, 800);
}

const foundSheet = new CSSStyleSheet(); // a rule about its id, which a run that draws the message anew does not take away
document.adoptedStyleSheets = [...document.adoptedStyleSheets, foundSheet];

/** Bring one message into sight, mark it, and begin there for those who hear the page: it was found by a search. */
function land(at) {
  foundSheet.replaceSync("");
  if (!at) return;
  const name = CSS.escape(at);
  const places = `.said[data-entry="${name}"], .st-key-msg_answer_${name}`;
  foundSheet.replaceSync(`:is(${places}){outline:3px solid var(--cp-mark)!important;outline-offset:.4rem;border-radius:.6rem}`);
  let told = false;
  hold(() => {
    const node = document.querySelector(places), page = scrollerOfPage();
    if (!node || !page) return;
    const box = node.getBoundingClientRect(), room = page.getBoundingClientRect();
    const foot = document.querySelector("[data-testid=stBottom]")?.getBoundingClientRect().height ?? 0;
    // In the middle of what is free, or its beginning at the top where it is longer than that.
    const by = box.top - room.top - Math.max(72, (room.height - foot - box.height) / 2);
    if (Math.abs(by) > 1) page.scrollTop += by;
    if (told) return;
    told = true;
    node.tabIndex = -1;
    node.focus({ preventScroll: true });
  }, 3_000);
}

/** Older messages come in above: what is being read stays where it is. */
function keepPlace() {
  const page = scrollerOfPage();
  if (!page) return;
  const fromEnd = page.scrollHeight - page.scrollTop;
  hold(() => {
    const at = page.scrollHeight - fromEnd;
    if (Math.abs(page.scrollTop - at) > 1) page.scrollTop = at;
  });
}

/** What was drawn as plain words, for message boxes that know no formatting: lists keep their marks, tables their columns. */
function plain(node, indent = "") {
  if (node.nodeType === Node.TEXT_NODE) return /^\s*\n\s*$/.test(node.data) ? "" : node.data.replace(/\u2060/g, "").replace(/[ \t\n]+/g, " ");
  if (node.nodeType !== Node.ELEMENT_NODE || ["BUTTON", "STYLE", "SVG", "svg"].includes(node.tagName)) return "";
  const formula = node.matches(".katex") && node.querySelector("annotation");
  if (formula) return `$$${formula.textContent}$$`;
  const inside = (deeper = indent) => [...node.childNodes].map((child) => plain(child, deeper)).join("");
  switch (node.tagName) {
    case "BR":
      return `\n${indent}`;
    case "HR":
      return "\n---\n\n";
    case "PRE":
      return `${(node.querySelector("code") ?? node).textContent.replace(/\n$/, "")}\n\n`;
    case "P": case "H1": case "H2": case "H3": case "H4": case "H5": case "H6":
      return `${inside().trim()}\n\n`;
    case "BLOCKQUOTE":
      return `${inside().trim().replace(/^/gm, "> ")}\n\n`;
    case "UL": case "OL": {
      let number = Number(node.getAttribute("start") ?? 1);
      const items = [...node.children].map((item) => {
        const mark = node.tagName === "OL" ? `${number++}. ` : "- ";
        return `${indent}${mark}${plain(item, indent + " ".repeat(mark.length)).trim()}\n`;
      });
      return `${indent ? "\n" : ""}${items.join("")}${indent ? "" : "\n"}`;
    }
    case "TR":
      return `${[...node.children].map((cell) => plain(cell).trim()).join("\t")}\n`;
    case "TABLE":
      return `${inside()}\n`;
    case "A": {
      const words = inside();
      return !node.href || words.includes(node.href.replace(/\/$/, "")) ? words : `${words} (${node.href})`;
    }
    default:
      return inside();
  }
}

/** The whole of it, tidied. An address in full says where it leads, so the host that the page shows beside a link is left out. */
const asText = (drawn) =>
  plain(drawn)
    .replace(/\(https?:\/\/(?:www\.)?([^\s/)]+)[^\s)]*\) \(([^\s)]+)\)/g, (all, host, shown) => (host === shown ? all.slice(0, all.lastIndexOf(" (")) : all))
    .replace(/ +$/gm, "")
    .replace(/\n{3,}/g, "\n\n")
    .trim();

/** The same for editors that know formatting: bare elements, nothing of this page's dress. */
function bare(node) {
  const copy = node.cloneNode(true);
  for (const formula of copy.querySelectorAll(".katex")) formula.replaceWith(`$$${formula.querySelector("annotation")?.textContent ?? ""}$$`);
  for (const extra of copy.querySelectorAll("button, svg, style, [data-testid=stCodeCopyButton]")) extra.remove();
  for (const element of copy.querySelectorAll("*")) {
    for (const { name } of [...element.attributes]) if (!["href", "start", "colspan"].includes(name)) element.removeAttribute(name);
  }
  return copy.innerHTML;
}

async function toClipboard(words, html) {
  try {
    const kinds = { "text/plain": new Blob([words], { type: "text/plain" }) };
    if (html) kinds["text/html"] = new Blob([html], { type: "text/html" });
    await navigator.clipboard.write([new ClipboardItem(kinds)]);
  } catch {
    // Without a secure connection browsers have no clipboard for programs, but still the old command.
    const area = document.body.appendChild(make("textarea"));
    area.value = words;
    area.select();
    const done = document.execCommand("copy");
    area.remove();
    if (!done) throw new Error("the browser refused to copy");
  }
}

/**
 * Stands outside of every fragment and shows nothing: what it asks for is the whole page's run (live.py, hands). Hears the buttons
 * of the messages' rows, which are plain HTML.
 */
const sessions = new Map(); // what was done for each session; outlives the component, which other pages take away

class Hands {
  static here = 0;
  id = null;
  at = null;

  constructor(root) {
    this.acts = [];
    this.status = root.appendChild(make("div"));
    this.status.setAttribute("role", "status");
    this.status.className = "vh";
    root.adoptedStyleSheets = [sheet];
    this.onClick = (event) => this.click(event);
    this.onSend = (event) => this.sends(event);
    document.addEventListener("click", this.onClick, { capture: true });
    // Not before the guard of a running answer, which stops what may not be sent.
    for (const kind of ["keydown", "click"]) document.body.addEventListener(kind, this.onSend, { capture: true });
    this.present(1);
  }

  /** The rows' buttons show while somebody hears them (looks.css): on a slow line the page is drawn before this program has come. */
  present(more) {
    Hands.here += more;
    document.documentElement.toggleAttribute("data-hands", Hands.here > 0);
  }

  /** A text leaves the composer at once, but Streamlit may lose the send when another click follows on its heels. */
  sends(event) {
    const box = composer();
    const enters = event.type === "keydown" && event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target === box;
    const clicks = event.type === "click" && event.target.closest?.("[data-testid=stChatInputSubmitButton]");
    if (!(enters || clicks) || !box?.value.trim() || box.disabled) return;
    toNewest(); // whoever sends wants to see it
    this.left = { text: box.value, session: this.session, heard: this.heard, rested: 0 };
    clearInterval(this.asking);
    this.asking = setInterval(() => this.wasHeard(), 250);
  }

  wasHeard() {
    const app = document.querySelector("[data-testid=stApp]");
    // In a new session nobody can tell whether it was heard: rather once too often in sight than lost.
    if ((this.heard === this.left.heard || this.session !== this.left.session) && composer()?.value !== this.left.text) {
      this.left.rested = app?.dataset.testScriptState === "notRunning" ? this.left.rested + 1 : 0;
      if (this.left.rested < 6) return;
      if (putBack(this.left.text)) why("That was not sent. Press Enter to send it.");
    }
    clearInterval(this.asking);
  }

  show(data, trigger) {
    this.trigger = trigger;
    // Dialogs are drawn outside of the app, which alone knows whether it is light or dark; looks.css asks for that.
    document.documentElement.style.colorScheme = getComputedStyle(document.querySelector("[data-testid=stApp]") ?? document.body).colorScheme;
    this.news = data.news ?? Infinity; // on the chat page its moving part minds the news
    this.heard = `${data.session} ${data.heard}`;
    this.session = data.session;
    const memory = sessions.get(data.session) ?? { backs: 0, acts: 0 };
    if (data.backs > memory.backs) hold(() => !(composer() && (putBack(data.back.at(-1)), true)), 5_000);
    sessions.set(data.session, { ...memory, backs: data.backs });
    this.acts = this.acts.filter(({ n }) => n > data.acted);
    this.lost = (url) => trigger("lost", url);
    if (data.chat !== this.chat || (data.at ?? null) !== this.at) {
      const left = data.chat !== this.chat;
      [this.chat, this.at] = [data.chat, data.at ?? null];
      land(this.at);
      if (data.chat && left && !this.at) toNewest();
      hold(shrink);
      closePanelOnPhones();
    }
    if (data.news !== undefined) {
      due.set(data.due ?? null, data.now);
      hold(markLook, 500); // the account page among others; the chat page, which runs most often, has no such buttons
    }
    if (this.line?.url === data.page_url) return;
    this.line?.leave(this);
    this.line = Line.at(data.page_url);
    this.line.join(this);
  }

  click(event) {
    const at = event.target;
    if (!(at instanceof Element)) return;
    if (at.closest(".st-key-earlier button")) return keepPlace();
    const look = at.closest("button[data-look]");
    if (look) return choose(look.dataset.look);
    const card = at.closest("[class*=st-key-card_]")?.querySelector("[data-words]");
    if (card && composer()?.value.trim()) return this.append(event, card.dataset.words);
    const button = at.closest("button[data-act]");
    if (!button || button.getAttribute("aria-disabled")) return;
    const { act, id = button.closest("[data-entry]")?.dataset.entry } = button.dataset;
    if (act === "copy") return void this.copy(button);
    if (act === "up" || act === "down") return this.thumb(button, act, id);
    this.act({ act, id });
    if (act in ASKS) hold(() => !focused(document.querySelector(ASKS[act])), 3_000);
    if (act === "leaf") this.stayAt(button);
  }

  async copy(button) {
    const own = button.closest(".said")?.querySelector(".own-words");
    const drawn = own ?? button.closest("[class*=st-key-msg_answer_]")?.querySelector("[data-testid=stMarkdownContainer]");
    if (!drawn) return;
    try {
      await (own ? toClipboard(own.textContent) : toClipboard(asText(drawn), bare(drawn)));
      button.dataset.done = "";
      this.status.textContent = "Copied";
    } catch {
      this.status.textContent = "Your browser did not let this page copy";
      why("Your browser did not let this page copy. Select the words instead.");
    }
    setTimeout(() => (delete button.dataset.done, (this.status.textContent = "")), 1_800);
  }

  /** Shown at once as one's own; the run that follows says the same. */
  thumb(button, act, id) {
    const pressed = button.getAttribute("aria-pressed") === "true";
    for (const other of button.parentElement.querySelectorAll("[aria-pressed]")) other.setAttribute("aria-pressed", String(other === button && !pressed));
    this.act({ act: pressed ? "none" : act, id });
  }

  /** Streamlit forgets a click when another comes before its run has begun: each is said again until the data show that it was heard. */
  act(words) {
    const memory = sessions.get(this.session);
    memory.acts += 1;
    this.acts = [...this.acts.slice(-9), { n: memory.acts, ...words }];
    this.tell(3);
  }

  tell(times) {
    clearTimeout(this.telling);
    if (!this.acts.length || !times) return;
    this.trigger("act", this.acts);
    this.telling = setTimeout(() => this.tell(times - 1), 2_000);
  }

  /** A starter fills the composer. Where something stands in it already, that stays and the starter follows. */
  append(event, words) {
    event.preventDefault();
    event.stopImmediatePropagation();
    const box = composer();
    fill(box, `${box.value.trimEnd()}\n\n${words}`);
    box.focus();
  }

  /** The row is drawn anew with the version: the same button of the same row keeps the focus. */
  stayAt(button) {
    const rows = () => [...document.querySelectorAll(".deeds")];
    const place = rows().indexOf(button.closest(".deeds"));
    const { title } = button;
    const old = button;
    hold(() => {
      const now = [...(rows()[place]?.querySelectorAll("[data-act=leaf]") ?? [])].find((other) => other.title === title);
      return !(now && now !== old && focused(now));
    }, 3_000);
  }

  draw() {}

  leave() {
    document.removeEventListener("click", this.onClick, { capture: true });
    for (const kind of ["keydown", "click"]) document.body.removeEventListener(kind, this.onSend, { capture: true });
    clearInterval(this.asking);
    clearTimeout(this.telling);
    this.present(-1);
    this.line.leave(this);
  }
}

/** As if it had been typed: React hears of a value only so. */
function fill(box, words) {
  Object.getOwnPropertyDescriptor(HTMLTextAreaElement.prototype, "value").set.call(box, words);
  box.dispatchEvent(new Event("input", { bubbles: true }));
}

/** Streamlit's composer stays as tall as the draft that another chat left in it. */
function shrink() {
  const box = composer();
  if (!box || box.value || box.offsetHeight < 60) return;
  fill(box, " ");
  fill(box, "");
}

/** A text that was not sent stands in the composer again, above what has been typed since. */
function putBack(words) {
  const box = composer();
  if (!box || box.value.includes(words)) return false;
  fill(box, box.value.trim() ? `${words}\n\n${box.value}` : words);
  return true;
}

/** Light or dark, for all pages: theme.js reads it before the next one starts. */
function choose(look) {
  try {
    for (const key of Object.keys(localStorage)) if (key.startsWith("stActiveTheme-")) localStorage.removeItem(key);
    localStorage.setItem("chatpro-theme", JSON.stringify(look));
    location.reload();
  } catch {
    for (const note of document.querySelectorAll(".looks")) note.dataset.kept = "no"; // looks.css says that this browser keeps nothing
  }
}

/** What was chosen; a browser that keeps nothing shows what the system says. */
function chosenLook() {
  try {
    return JSON.parse(localStorage.getItem("chatpro-theme")) ?? "System";
  } catch {
    return "System";
  }
}

function markLook() {
  for (const button of document.querySelectorAll("button[data-look]")) button.setAttribute("aria-pressed", String(button.dataset.look === chosenLook()));
}

/** Where a person goes on after the buttons that ask something: to write, or to the answer that loses nothing. */
const ASKS = { edit: ".st-key-editor textarea", renaming: ".st-key-new_title input", deleting: ".st-key-delete_no button" };

function focused(element) {
  element?.focus();
  if (element?.setSelectionRange && document.activeElement === element) element.setSelectionRange(element.value.length, element.value.length);
  return !!element && document.activeElement === element;
}

/** On a phone the panel covers the chat that was chosen in it. */
function closePanelOnPhones() {
  if (matchMedia("(max-width: 767px)").matches) document.querySelector("[data-testid=stSidebar]:is([data-collapsed=false],[aria-expanded=true]) [data-testid=stSidebarCollapseButton] button")?.click();
}

const views = new WeakMap();

export default function ({ parentElement, data, setTriggerValue }) {
  let view = views.get(parentElement);
  if (!view) views.set(parentElement, (view = data.page_url ? new Hands(parentElement) : new View(parentElement)));
  view.show(data, setTriggerValue);
  // Streamlit also calls this for a call that a newer one has overtaken, which shows on the same view: only who is really gone leaves.
  return () =>
    setTimeout(() => {
      if ((parentElement.host ?? parentElement).isConnected || views.get(parentElement) !== view) return;
      views.delete(parentElement);
      view.leave();
    });
}
