// Fetches an export that the page has asked for, and says how far it is.
//
// The file itself is the browser's to take and to save: an address is followed once, and what comes is never held here.

const sheet = new CSSStyleSheet();
sheet.replaceSync(`
:host{display:block;color:var(--st-text-color);font-family:var(--st-font);font-size:.9375rem;line-height:1.45}
[hidden]{display:none!important}
.box{display:flex;flex-wrap:wrap;align-items:center;gap:.35rem .75rem;padding:.55rem .9rem;border-radius:.6rem;border-left:4px solid light-dark(#7A8784,#6E7C78);background:light-dark(#F3F5F4,#1E2423)}
progress{flex:1 1 8rem;max-width:16rem;height:.5rem;accent-color:var(--st-primary-color)}
.name{overflow-wrap:anywhere}
`);

const LOOK = 500; // ms between two looks at how far it is
const MOST_SILENT = 20; // looks in a row without an answer, until it counts as broken off

const fetched = new Set(); // outlives the component: an address works once, and is not to be asked for again

class Fetching {
  constructor(root) {
    this.box = document.createElement("div");
    this.box.className = "box";
    this.box.hidden = true;
    this.words = document.createElement("span");
    this.words.className = "name";
    this.words.setAttribute("role", "status");
    this.bar = document.createElement("progress");
    this.bar.setAttribute("aria-label", "Export");
    this.box.append(this.words, this.bar);
    root.append(this.box);
    root.adoptedStyleSheets = [sheet];
  }

  show({ url, watch, name }) {
    if (this.url === url) return;
    clearTimeout(this.timer);
    this.url = url;
    this.box.hidden = !url;
    if (!url) return;
    [this.watch, this.name, this.silent] = [watch, name, 0];
    this.say("Your export is being made");
    this.bar.hidden = false;
    this.bar.removeAttribute("value");
    if (!fetched.has(url)) this.fetch(url);
    this.look();
  }

  fetch(url) {
    fetched.add(url);
    const link = document.createElement("a");
    link.href = url;
    link.download = "";
    link.hidden = true;
    document.body.append(link);
    link.click();
    link.remove();
  }

  async look() {
    const { watch } = this;
    let found = null;
    try {
      const answer = await fetch(watch, { cache: "no-store" });
      found = answer.ok ? await answer.json() : { state: "failed" };
    } catch {
      this.silent += 1; // no connection at this moment: the file may still be coming
    }
    if (watch !== this.watch || !this.url) return;
    if (found?.state === "done") return this.end(`“${this.name}” is among your downloads.`);
    if (found?.state === "failed" || this.silent > MOST_SILENT) return this.end("The export was broken off, so the file is not whole. Ask for it again.");
    if (found?.state === "running" && found.of) {
      this.silent = 0;
      this.bar.max = found.of;
      this.bar.value = found.done;
    }
    this.timer = setTimeout(() => this.look(), LOOK);
  }

  end(words) {
    this.bar.hidden = true;
    this.say(words);
  }

  say(words) {
    if (this.words.textContent !== words) this.words.textContent = words;
  }

  leave() {
    clearTimeout(this.timer);
    this.url = null;
  }
}

const all = new WeakMap();

export default function ({ parentElement, data }) {
  let one = all.get(parentElement);
  if (!one) all.set(parentElement, (one = new Fetching(parentElement)));
  one.show(data ?? {});
  return () => {
    if (parentElement.host.isConnected) return; // Streamlit also cleans up after a call that the next one overtook
    all.delete(parentElement);
    one.leave();
  };
}
