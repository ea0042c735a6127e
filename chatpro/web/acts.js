// What was done in a list of ours and was not heard of yet: the other half of acts.py.

const PATIENCE = 6_000; // ms until an act that no run has answered is told again; then twice that, then it counts as lost
const TRIES = 2;
const NEWEST_ONLY = new Set(["open", "view", "search"]); // whoever wants to be elsewhere does not want to be where they wanted to be before
const LEADS_AWAY = new Set(["all", "search"]); // the page it leads to may have no list to hear of it

/**
 * One step back, not two: for another page with something in its address, Streamlit puts two entries into the browser's history, this page
 * with the other's address, and then the other page. The back button would lead to the first, which nobody has ever seen.
 */
function oneStep() {
  if (history.oneStep) return; // another list's copy of this file has seen to it
  history.oneStep = true;
  const push = history.pushState.bind(history);
  let half = null; // what the first of the two was
  history.pushState = (state, unused, address) => {
    const to = new URL(address ?? location.href, location.href);
    const second = half && to.search === half.search && to.pathname !== half.pathname;
    half = !second && to.search && to.pathname === location.pathname ? to : null;
    if (second) history.replaceState(state, unused, address);
    else push(state, unused, address);
  };
}
oneStep();

/**
 * What was done and not heard of yet, for one session of the script. Streamlit forgets a trigger when the next one comes before
 * its run has begun, so each message says again all that is open (acts.py has the other half).
 */
export class Acts {
  static lines = new Map(); // outlive the list, which the page may take away and put back

  static on(list, { line, heard }) {
    if (!Acts.lines.has(line)) Acts.lines.set(line, new Acts(heard));
    const acts = Acts.lines.get(line);
    // What was done in a session that is over is not done in the next: somebody else may be signed in there.
    if (list.acts !== acts) clearTimeout(list.acts?.timer);
    acts.list = list;
    return acts;
  }

  constructor(heard) {
    this.last = heard;
    this.open = [];
    this.tries = 0;
  }

  add(act) {
    if (NEWEST_ONLY.has(act.is)) this.open = this.open.filter((earlier) => earlier.is !== act.is);
    this.open.push({ n: (this.last += 1), ...act });
    this.tries = 0;
    this.tell();
  }

  tell() {
    this.list.trigger("acts", this.open);
    this.open = this.open.filter((act) => !LEADS_AWAY.has(act.is));
    this.wait();
  }

  wait() {
    clearTimeout(this.timer);
    if (this.open.length) this.timer = setTimeout(() => this.again(), PATIENCE * 2 ** this.tries);
  }

  again() {
    this.tries += 1;
    // Meanwhile somebody may have gone elsewhere by other ways than this list: a chat is not opened late.
    this.open = this.tries > TRIES ? [] : this.open.filter((act) => !NEWEST_ONLY.has(act.is));
    if (this.open.length) this.tell();
    this.list.draw();
  }

  heard({ heard, open }) {
    this.last = Math.max(this.last, heard);
    this.open = this.open.filter((act) => act.n > heard && !(act.is === "open" && act.id === open));
    this.wait();
  }
}
