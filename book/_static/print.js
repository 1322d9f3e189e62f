// Paper is white: a page is printed in the light theme, whatever the reader sees.
matchMedia("print").addEventListener("change", ({ matches }) => {
  const { dataset } = document.documentElement;
  if (matches) dataset.seen = dataset.theme;
  dataset.theme = matches ? "light" : dataset.seen;
});
