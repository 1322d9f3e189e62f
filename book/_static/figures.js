// Figures are saved from the page itself, which holds their SVG once: black again where they take the colour of text.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-svg]");
  const drawn = button?.closest("figure")?.querySelector("svg");
  if (!drawn) return;
  const svg = drawn.cloneNode(true);
  for (const name of ["style", "aria-hidden", "fill"]) svg.removeAttribute(name);
  const text = new XMLSerializer().serializeToString(svg).replaceAll("currentColor", "#000000");
  const url = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
  Object.assign(document.createElement("a"), { href: url, download: button.dataset.svg }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
});

// On a phone a drawing is seen whole; a button makes it as large as its text needs, see custom.css.
document.addEventListener("click", (event) => {
  const button = event.target.closest("figure.drawing button.larger");
  if (button) button.textContent = button.closest("figure").classList.toggle("large") ? "Smaller" : "Larger";
});
