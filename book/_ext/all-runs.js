// The table of all runs, and others of its kind: filters, sorting, downloads. Without this script all of it is shown.
// A cell with data-value is sorted and downloaded by that.

document.querySelectorAll(".all-runs:not([data-ready])").forEach((box) => {
  "use strict";
  box.dataset.ready = ""; // another table of the page brings the script, too
  const what = box.dataset.of ?? "runs", file = box.dataset.name ?? "runs";
  const body = box.querySelector("tbody");
  const heads = [...box.querySelectorAll("thead th")];
  const names = heads.map((head) => head.textContent);
  const rows = [...body.rows].map((row) => ({ row, words: [...row.cells].map((cell) => cell.textContent.trim()), name: row.querySelector("a[href^='run.html']")?.title ?? "", ...row.dataset }));
  const order = new Intl.Collator("en", { numeric: true });
  const value = (r, i) => {
    const words = r.row.cells[i].dataset.value ?? r.words[i];
    return words === "–" || words === "" ? null : words.replace(/(\d),(?=\d{3})/g, "$1");
  };
  const make = (tag, attributes, ...children) => {
    const element = Object.assign(document.createElement(tag), attributes);
    element.append(...children);
    return element;
  };

  // What a filter compares: a run has one of each, and of settings any number.
  const parts = (r, i) => (names[i] === "settings" ? r.words[i].split(/, (?=\w+=)/).map((w) => w || "as preset") : [r.words[i]]);

  const selects = heads.flatMap((head, i) => {
    if (!head.hasAttribute("data-filter")) return [];
    const values = [...new Set(rows.flatMap((r) => parts(r, i)))].sort(order.compare);
    const select = make("select", { onchange: show }, make("option", { value: "" }, "all"), ...values.map((v) => make("option", { value: v }, v)));
    return [{ i, select, label: make("label", {}, names[i], " ", select) }];
  });
  const words = make("input", { type: "search", oninput: show, placeholder: what === "runs" ? "beta=1, a hash, with changes" : "", value: (what === "runs" && new URLSearchParams(location.search).get("find")) || "" });
  const count = make("p", { className: "count" });
  count.setAttribute("role", "status");
  const button = (label, click) => make("button", { type: "button", onclick: click }, label);
  const bar = make("div", { className: "filters" }, ...selects.map((s) => s.label), make("label", {}, "any words ", words));
  box.prepend(bar, count, make("p", {}, "Download what is shown: ", button("CSV", csv), " ", button("JSON", json)));

  heads.forEach((head, i) => {
    const sorter = button(names[i], () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      heads.forEach((h) => h.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      rows.sort((a, b) => {
        const [x, y] = [value(a, i), value(b, i)];
        if (x === null || y === null) return (x === null) - (y === null); // what is none comes last
        return (down ? -1 : 1) * (Number.isNaN(Number(x) - Number(y)) ? order.compare(x, y) : Number(x) - Number(y));
      });
      body.append(...rows.map((r) => r.row));
    });
    head.replaceChildren(sorter);
  });

  function show() {
    const wanted = words.value.toLowerCase().split(/[\s,&]+/).filter(Boolean).map((w) => (/^t=\d+$/.test(w) ? `${w} ` : w)); // T=2 is not T=20
    let shown = 0;
    for (const r of rows) {
      const text = `${r.words.join(" ")} T=${r.words[names.indexOf("T")]} seed ${r.words[names.indexOf("seed")]} ${r.name} ${r.commit} ${r.teacher} `.toLowerCase();
      const fits = selects.every(({ i, select }) => !select.value || parts(r, i).includes(select.value)) && wanted.every((w) => text.includes(w));
      r.row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length} ${what}`;
  }

  // The whole name and commit, and whether there were changes, in place of what a cell has room for.
  const chosen = () => rows.filter((r) => !r.row.hidden).map((r) => {
    const cells = names.map((n, i) => [n, value(r, i)]).filter(([n]) => what !== "runs" || (n !== "run" && n !== "commit"));
    const numbers = Object.fromEntries(cells.map(([n, v]) => [n, v !== null && !Number.isNaN(Number(v)) ? Number(v) : v]));
    return what !== "runs" ? numbers : { run: r.name, ...numbers, teacher: r.teacher || null, commit: r.commit || null, uncommitted_changes: /with changes$/.test(r.words[names.indexOf("commit")]) };
  });
  function save(name, type, content) {
    const url = URL.createObjectURL(new Blob([content], { type }));
    make("a", { href: url, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(url), 1000);
  }
  function csv() {
    const quoted = (v) => (/[",\n]/.test(v ?? "") ? `"${String(v).replaceAll('"', '""')}"` : v ?? "");
    save(`${file}.csv`, "text/csv", [Object.keys(chosen()[0] ?? {}), ...chosen().map(Object.values)].map((row) => `${row.map(quoted).join(",")}\n`).join(""));
  }
  function json() {
    save(`${file}.json`, "application/json", JSON.stringify(chosen(), null, 1));
  }
  show();
});
