/* The theme's icons come from its font; its script would draw them once more, at 1.5 MB a page. */
