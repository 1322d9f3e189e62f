// Editions of a page, links in the HTML, get the keys of tabs; the one that was chosen last is opened from the contents.
document.addEventListener("DOMContentLoaded", () => {
  "use strict";
  const KEY = "sastc-edition", MOVED = "sastc-edition-by-key";
  const keep = (store, name, value) => { try { window[store].setItem(name, value); } catch { /* storage is refused */ } };
  const kept = (store, name) => { try { return window[store].getItem(name); } catch { return null; } };

  for (const list of document.querySelectorAll("nav.edition-tabs ul")) {
    const tabs = [...list.querySelectorAll("a")];
    const panel = document.querySelector("article.bd-article");
    list.setAttribute("role", "tablist");
    list.setAttribute("aria-label", list.parentElement.getAttribute("aria-label"));
    tabs.forEach((tab, i) => {
      const here = tab.getAttribute("aria-current") === "page";
      tab.parentElement.setAttribute("role", "presentation");
      tab.setAttribute("role", "tab");
      tab.setAttribute("aria-selected", String(here));
      tab.tabIndex = here ? 0 : -1;
      if (here && panel?.id) tab.setAttribute("aria-controls", panel.id);
      tab.addEventListener("click", () => keep("localStorage", KEY, tab.dataset.edition));
      tab.addEventListener("keydown", (event) => {
        const to = { ArrowRight: i + 1, ArrowLeft: i - 1, Home: 0, End: -1 }[event.key];
        if (to !== undefined) tabs.at(to % tabs.length).focus();
        else if (event.key === " " || event.key === "Enter") {
          keep("sessionStorage", MOVED, "1");
          tab.click();
        } else return;
        event.preventDefault();
      });
      if (here && kept("sessionStorage", MOVED)) tab.focus(); // whoever came by keyboard goes on from here
    });
    keep("sessionStorage", MOVED, "");
  }

  const chosen = kept("localStorage", KEY);
  for (const link of document.querySelectorAll("a[data-editions]")) {
    link.href = JSON.parse(link.dataset.editions)[chosen] ?? link.getAttribute("href");
  }
});
