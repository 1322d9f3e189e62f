// The search page: words as the index has them (see search.py), excerpts from articles alone, and recorded runs.

(() => {
  "use strict";
  const TOGETHER = [[/\bT\s*=\s*(\d+)/gi, "timesteps$1"], [/\b([a-z]+)-(\d+)(?:-(\d+))?\b/gi, (_, a, b, c) => `${a}${b}${c ?? ""}`], [/(?<![\w.])(\d+)\.(\d+)(?!\w|\.\d)/g, "$1point$2"]];
  const tokens = (text) => text.toLowerCase().split(/[\s,&()]+/).filter(Boolean);
  const asked = () => (new URLSearchParams(location.search).get("q") ?? "").trim();
  const asIndexed = (query) => TOGETHER.reduce((words, [pattern, to]) => words.replace(pattern, to), query).replaceAll("&", " ");
  // What is to be seen in an excerpt: the words as they were typed.
  const typed = () => asked().toLowerCase().split(/[\s,]+/).filter((word) => word.length > 1);

  Scorer.title = 25; // above the names of functions
  // Results before other pages; of them those at a larger scale than digits, and the main table; the library's reference last.
  const BETTER = [[/^(runs\/|builders$)/, 2], [/^runs\/\w+_[a-z]+$/, 1], [/^runs\/table2/, 1], [/^api/, -2]];
  // Above all a page whose title has every word that is looked for.
  const titled = (title) => tokens(asked()).every((word) => tokens(title).some((token) => token.startsWith(word)));
  Scorer.score = ([name, title, , , score]) => BETTER.reduce((sum, [pattern, points]) => sum + (pattern.test(name) ? points : 0), score + (titled(title) ? 10 : 0));
  if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false; // pages cannot be read from the disk

  const parse = Search._parseQuery;
  Search._parseQuery = (query) => {
    const [text, terms, excluded, , objects] = parse(asIndexed(query));
    const marked = new Set(typed().filter((word) => !/^t\s*=/.test(word)));
    if (typeof SPHINX_HIGHLIGHT_ENABLED !== "undefined" && SPHINX_HIGHLIGHT_ENABLED) localStorage.setItem("sphinx_highlight_terms", [...marked].join(" "));
    return [text, terms, excluded, marked, objects];
  };

  const LEFT_OUT = "script, style, template, svg, nav, h1, summary, details.above-input, .headerlink, .cell_input, div.highlight, .footer, .rerun, .all-runs, .sastc-explorer, button";
  Search.htmlToText = (source) => {
    const article = new DOMParser().parseFromString(source, "text/html").querySelector("article");
    if (!article) return "";
    article.querySelectorAll(LEFT_OUT).forEach((node) => node.remove());
    article.querySelectorAll("p, li, td, th, h1, h2, h3, div").forEach((node) => node.append(" "));
    return article.textContent.replace(/\s+/g, " ").trim();
  };
  Search.makeSearchSummary = (source) => {
    const text = Search.htmlToText(source);
    const lower = text.toLowerCase();
    const places = typed().flatMap((word) => [word, { beta: "β", gamma: "γ", eta: "η" }[word] ?? word]).map((word) => lower.indexOf(word)).filter((i) => i >= 0);
    const start = Math.max(0, Math.min(...places, text.length) - 100);
    const from = places.length ? start : 0;
    const summary = document.createElement("p");
    summary.className = "context";
    summary.textContent = `${from ? "… " : ""}${text.slice(from, from + 240).trim()}${from + 240 < text.length ? " …" : ""}`;
    return summary;
  };

  // Runs of which every word is one of their title's or name's; of long words and hashes the beginning is enough.
  function fits(query, [name, title]) {
    const own = [...tokens(title), name.toLowerCase(), ...name.toLowerCase().split("-")];
    return tokens(query).every((word) => own.some((token) => token === word || (word.length > 3 && token.startsWith(word))));
  }

  const SHOWN = 3; // of runs with the fewest settings of their own
  function showRuns(query) {
    const found = window.runNames.filter((run) => fits(query, run)).sort(([, a], [, b]) => a.length - b.length);
    if (!found.length) return;
    const make = (tag, words, more = {}) => Object.assign(document.createElement(tag), { textContent: words }, more);
    const section = make("section", "", { className: "found-runs" });
    const list = make("ul", "");
    for (const [name, title] of found.slice(0, SHOWN)) {
      const item = make("li", "");
      item.append(make("a", title, { href: `run.html#${name}` }), make("span", ` ${name.split("-").at(-1)}`));
      list.append(item);
    }
    section.append(make("h2", `Runs: ${found.length}`), list);
    if (found.length > SHOWN) section.append(make("a", `All ${found.length} in the table of runs`, { href: `every_run.html?find=${encodeURIComponent(query)}` }));
    document.getElementById("search-results").before(section);
  }

  const query = asked();
  if (!query) return;
  const script = document.createElement("script");
  script.src = "_static/run-names.js";
  script.addEventListener("load", () => showRuns(query));
  document.head.append(script);
})();
