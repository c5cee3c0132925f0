"use strict";
// A click on a heading sorts the rows of its table by that column, best first; a second click reverses them.
for (const table of document.querySelectorAll("table.sortable")) {
  for (const button of table.querySelectorAll("thead button")) {
    button.addEventListener("click", () => {
      const heading = button.parentElement;
      const column = heading.cellIndex;
      const better = button.dataset.better === "higher" ? -1 : 1;
      const reversed = heading.getAttribute("aria-sort") === "ascending";
      for (const other of table.querySelectorAll("thead th")) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", reversed ? "descending" : "ascending");
      const value = (row) => {
        const text = row.cells[column].dataset.value;
        return text === undefined ? null : Number(text);
      };
      const body = table.tBodies[0];
      const rows = [...body.rows].sort((a, b) => {
        const x = value(a), y = value(b);
        if (x === null || y === null) return (x === null) - (y === null);
        return (reversed ? -1 : 1) * better * (x - y);
      });
      body.append(...rows);
    });
  }
}
document.documentElement.dataset.ready = "true";
