/* Light, dark, or as the system says: one choice for all pages, there before Streamlit starts.

   Streamlit keeps the choice of its menu for the one address at which it was loaded: whoever chose dark on one page had light again after a
   reload of another. Whatever it keeps that differs from what was chosen before is the newer choice, because nothing else is left there. */
"use strict";
try {
  const keys = Object.keys(localStorage).filter((key) => key.startsWith("stActiveTheme-"));
  const before = localStorage.getItem("chatpro-theme");
  const chosen = keys.map((key) => localStorage.getItem(key)).find((theme) => theme !== before) ?? before;
  for (const key of keys) localStorage.removeItem(key);
  if (chosen) {
    localStorage.setItem("chatpro-theme", chosen);
    localStorage.setItem(`stActiveTheme-${location.pathname}-v2`, chosen);
  }
} catch {
  /* a browser that keeps nothing shows what the system says */
}
